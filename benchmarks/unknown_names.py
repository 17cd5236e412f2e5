"""How many names `unknown_names` finds, and how many words it takes for names.

Names are planted in texts: the shipped English examples, paragraphs in German and Swedish written
here, and on request any table of essays. The names were written down from what pupils in these
countries are called, before the lists were looked at, not drawn from them.

    python -m benchmarks.unknown_names [--essays TABLE.csv --language de]

Recall is the share of planted words that are found whole. A false find is a word found before
anything was planted (`--essays`: look at them, for real essays hold real names).
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np

from cj_pipeline.intake.masking import WORD
from cj_pipeline.intake.unknown_names import NameGuesser

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = {
    "en": """
        Olivia Carter, Jayden Brooks, Aaliyah Washington, Ethan Murphy, Sofia Ramirez, DeShawn
        Harris, Priya Natarajan, Liam O'Connor, Mei Chen, Zainab Hussain, Oliver Bennett, Freya
        Hughes, Muhammad Iqbal, Poppy Whitfield, Callum Fraser, Chidi Okafor, Niamh Byrne, Tyler
        Jenkins, Esperanza Delgado, Harrison Ford, Nokomis Littlebear, Grace Turner, Mark
        Phillips, Hope Lindley, Will Thatcher, Ngozi Adeyemi, Siobhan Doyle, Kayla Robinson,
        Xavier Dupont, Tamika Jefferson
    """,
    "de": """
        Lukas Schneider, Mia Hoffmann, Emre Yildiz, Hatun Demir, Finn Schulte, Lea-Marie Krüger,
        Noah Zimmermann, Ayşe Kaya, Jonas Reuter, Leonie Vogt, Mohammed Al-Hamad, Fatima Saleh,
        Maximilian Brandt, Oleksandr Kovalenko, Svetlana Ivanova, Agnieszka Nowak, Ben Krause,
        Lina Pohl, Mehmet Arslan, Rojda Aydin, Thi Mai Nguyen, Jannik Petersen, Friederike Seidel,
        Ernst Keller, Rose Winkler, Wolfgang Haas, Dilara Öztürk, Amadou Diallo, Kevin Lorenz,
        Anneliese Baumgartner
    """,
    "sv": """
        Elsa Lindqvist, William Sandberg, Maja Nyström, Hugo Ekström, Ali Hassan, Amina Warsame,
        Saga Holmgren, Oskar Wikström, Alva Berglund, Liam Hedlund, Leyla Karimi, Youssef Haddad,
        Ebba Sjögren, Nils Åkesson, Tuva Lundin, Melker Forsberg, Khadija Abdi, Zeynep Yılmaz,
        Björn Åberg, Sol Engström, Lo Malmberg, Ivar Sundin, Selma Blomqvist, Rasmus Norén,
        Abdirahman Jama, Svea Dahlberg, Tindra Björklund, Milan Petrović, Samira Rahimi, Axel
        Rosén
    """,
}
SENTENCES = {
    "en": (
        "Yesterday I met {first} at the bus stop.",
        "{first} said that it was fine.",
        "I still have {first}'s book.",
        "My friend {first} {family} helped me a lot.",
        "Our teacher is Mrs {family}.",
        "Dear {first},",
        "My name is {first} {family}.",
    ),
    "de": (
        "Gestern habe ich {first} an der Haltestelle getroffen.",
        "{first} hat gesagt, dass alles gut ist.",
        "Ich habe noch {first}s Buch.",
        "Meine Freundin {first} {family} hat mir geholfen.",
        "Unsere Lehrerin ist Frau {family}.",
        "Liebe {first},",
        "Ich heiße {first} {family}.",
    ),
    "sv": (
        "I går träffade jag {first} vid hållplatsen.",
        "{first} sa att allt var bra.",
        "Jag har kvar {first}s bok.",
        "Min kompis {first} {family} hjälpte mig mycket.",
        "Vår lärare är fru {family}.",
        "Hej {first}!",
        "Jag heter {first} {family}.",
    ),
}
PARAGRAPHS = {
    "de": """
        Letzten Sommer waren wir zwei Wochen an der Ostsee. Am ersten Tag hat es geregnet, aber
        danach schien die Sonne. Mein Bruder wollte jeden Morgen schwimmen, und meine Mutter las
        am Strand ein Buch. Am besten gefiel mir der Ausflug nach Rügen, denn dort sind die Felsen
        weiß wie Kreide.
        --
        Viele Leute glauben, dass Handys in der Schule verboten werden sollten. Ich bin anderer
        Meinung. Im Unterricht braucht man manchmal ein Wörterbuch, und auf dem Heimweg will man
        die Eltern anrufen können. Natürlich darf keiner während einer Klassenarbeit im Internet
        suchen.
        --
        Liebe Grüße aus Hamburg! Die Stadt gefällt mir sehr. Am Montag war ich im Hafen, am
        Dienstag in einem Museum. Im Frühling kommen die Großeltern zu Besuch. Ernst gemeint: Du
        musst auch kommen, am besten im Mai oder im Juni, wenn im Park die Rosen blühen.
        --
        Mein Traumberuf ist Arzt. Als Kind war ich lange im Krankenhaus, und die Ärztin hat mir
        alles erklärt. Man muss dafür gut in Mathematik und Biologie sein. Das Studium dauert
        sechs Jahre, und danach arbeitet man oft nachts. Trotzdem möchte ich Menschen helfen.
    """,
    "sv": """
        I somras åkte vi till Gotland i två veckor. Första dagen regnade det, men sedan sken
        solen. Min bror ville bada varje morgon och mamma läste en bok på stranden. Bäst var
        utflykten till Fårö, för där finns raukar som ser ut som jättar. Vi åt glass i Visby och
        tittade på ringmuren.
        --
        Många tycker att mobiler borde förbjudas i skolan. Jag håller inte med. På lektionen
        behöver man ibland en ordbok, och på vägen hem vill man kunna ringa sina föräldrar.
        Självklart får ingen söka på nätet under ett prov. Alla vet det, men alla gör inte så.
        --
        Hej alla! Hälsningar från Göteborg. Staden är fin och på måndagen var vi i hamnen. Till
        Påsk kommer mormor och morfar. Stig gärna upp tidigt om du vill se soluppgången över
        älven. Björnar finns bara på Slottsskogens skyltar, sa vakten.
        --
        Mitt drömyrke är läkare. När jag var liten låg jag länge på sjukhus och läkaren förklarade
        allt för mig. Man måste vara bra i matematik och biologi. Utbildningen tar fem och ett
        halvt år och sen jobbar man ofta på natten. Ändå vill jag hjälpa människor.
    """,
}


def names_of(language: str) -> list[tuple[str, str]]:
    """Return first and family names to plant."""
    whole = [" ".join(name.split()) for name in NAMES[language].split(",")]
    return [(name.rsplit(" ", 1)[0], name.rsplit(" ", 1)[1]) for name in whole]


def texts_of(language: str) -> list[str]:
    """Return the shipped texts of a language."""
    if language == "en":
        tables = sorted(EXAMPLES.glob("*/essays.csv"))
        return [row["text"] for table in tables for row in rows_of(table)]
    return [" ".join(text.split()) for text in PARAGRAPHS[language].split("--")]


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return a table's rows."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def planted(
    texts: list[str], language: str, rng: np.random.Generator
) -> list[tuple[str, int, list[tuple[int, int, str]]]]:
    """Return each name in each sentence, put into a text: the text's number, and what to find."""
    done = []
    for first, family in names_of(language):
        for sentence in SENTENCES[language]:
            number = int(rng.integers(len(texts)))
            greets = sentence.endswith((",", "!"))
            text = texts[number]
            at = 0 if greets else int(rng.choice([0, len(text)]))
            before, after = text[:at], text[at:]
            head = before + ("\n" if before and not before.endswith("\n") else "")
            wanted, body = [], sentence
            for role, name in (("first", first), ("family", family)):
                if f"{{{role}}}" not in body:
                    continue
                begins = body.index(f"{{{role}}}")
                body = body.replace(f"{{{role}}}", name)
                wanted.append((begins, begins + len(name), role))
            shifted = [(len(head) + b, len(head) + e, role) for b, e, role in wanted]
            done.append((f"{head}{body}\n{after}", number, shifted))
    return done


def measure(language: str, texts: list[str]) -> None:
    """Print recall and false finds in these texts."""
    false = Counter(
        text[begins:ends]
        for text in texts
        for begins, ends in NameGuesser.of(texts, ()).found(text)
    )
    n_words = sum(1 for text in texts for _ in WORD.finditer(text))
    hit: Counter[str] = Counter()
    total: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for text, number, wanted in planted(texts, language, np.random.default_rng(1)):
        others = [other for other_number, other in enumerate(texts) if other_number != number]
        spans = NameGuesser.of([text, *others], ()).found(text)
        for begins, ends, role in wanted:
            cue = "told" if _is_told(text[:begins]) else "bare"
            words = [m.span() for m in WORD.finditer(text, begins) if m.start() < ends]
            is_found = all(any(b <= x and y <= e for b, e in spans) for x, y in words)
            total[f"{role} {cue}"] += 1
            hit[f"{role} {cue}"] += is_found
            if not is_found:
                missed[text[begins:ends]] += 1
    print(f"{language}: {len(texts)} texts, {n_words} words")
    for kind in sorted(total):
        print(f"  {kind:12} {hit[kind]:4} of {total[kind]:4} found ({hit[kind] / total[kind]:.0%})")
    print(f"  found before planting: {sum(false.values())}: {dict(false.most_common(40))}")
    print(f"  missed: {dict(missed.most_common(40))}")


def _is_told(before: str) -> bool:
    """Whether what stands before a planted name gives it away: a title, a greeting or such."""
    cues = ("Dear ", "Liebe ", "Hej ", "Mrs ", "Frau ", "fru ", "name is ", "heiße ", "heter ")
    return before.endswith(cues)


def main() -> None:
    """Measure the three languages, or the texts of a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--essays", type=Path)
    parser.add_argument("--language", default="de", choices=sorted(NAMES))
    chosen = parser.parse_args()
    if chosen.essays is not None:
        measure(chosen.language, [row["text"] for row in rows_of(chosen.essays)])
        return
    for language in NAMES:
        measure(language, texts_of(language))


if __name__ == "__main__":
    main()
