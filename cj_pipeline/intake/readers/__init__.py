"""Files of word processors, spreadsheets and PDF printers become text, in a process with limits.

`process` is what the rest of the intake calls; it hands the bytes to `child`, which runs one of the
format's own modules. Those never run in the daemon, the web server or a command: a file of a few
kilobytes can make their libraries end the process or fill the memory.
"""
