"""What a person should read first, how sure it all is, and whether groups stand apart."""
