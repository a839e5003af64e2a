"""Small talk and exact formats: greetings, bullets, JSON, copying, sorting, sequences, capitals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from dlm.evals.tasks.base import CLOSED, Example, Key

NAMES: Final = (
    "Tom", "Anna", "Ben", "Mia", "Sam", "Lily", "Max", "Ella", "Leo", "Nora", "Jack", "Rosa",
    "Omar", "Zoe", "Ivan", "Lucy", "Carl", "Dana",
)  # fmt: skip
GREETINGS: Final = ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Hello there", "Hi there")
COLORS: Final = (
    "red", "blue", "green", "black", "white", "pink", "gold", "brown", "gray", "orange", "purple",
    "yellow",
)  # fmt: skip
ANIMALS: Final = (
    "cat", "dog", "horse", "cow", "pig", "duck", "goat", "fox", "bear", "lion", "wolf", "frog",
    "bird", "fish",
)  # fmt: skip
WORDS: Final = COLORS + ANIMALS
COUNTS: Final[Mapping[int, str]] = {2: "two", 3: "three", 4: "four", 5: "five"}
CAPITALS: Final = (
    ("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Japan", "Tokyo"),
    ("Egypt", "Cairo"), ("Peru", "Lima"), ("Cuba", "Havana"), ("Greece", "Athens"),
    ("Norway", "Oslo"), ("Kenya", "Nairobi"), ("China", "Beijing"), ("Russia", "Moscow"),
    ("Poland", "Warsaw"), ("Chile", "Santiago"), ("Germany", "Berlin"), ("Portugal", "Lisbon"),
)  # fmt: skip
HELP: Final = "How can I help you today?"
SMALL_TALK: Final = (
    (("Who are you?", "What are you?"), "I am a small diffusion language model."),
    (("What can you do?", "Help"), "I solve word problems, write small functions and play Sudoku."),
    (("How are you?", "How are you today?"), f"I am fine, thank you. {HELP}"),
    (("Hello, how are you?", "Hi, how are you?"), f"Hello! I am fine, thank you. {HELP}"),
    (("Thanks!", "Thank you!", "Thank you.", "Thanks"), "You are welcome!"),
    (("Bye!", "Goodbye!", "Goodbye.", "Bye"), "Goodbye! Have a nice day."),
)

Draw = tuple[Key, str, str]


@dataclass(frozen=True, slots=True)
class Format:
    """Rungs: `open` formats are graded on unseen content, `closed` answers are learned by heart."""

    name: str = "format"
    canvas: int = 48

    def make(self, rng: Random) -> Example:
        """Draw a category, then its content."""
        key, prompt, answer = rng.choice(CATEGORIES)(rng)
        rung = "closed" if key[0] == CLOSED else "open"
        return Example(self.name, rung, key, prompt, answer)

    def grade(self, example: Example, text: str) -> bool:
        """The text must be the answer exactly, up to surrounding white space."""
        return text.strip() == example.answer


def greeting(rng: Random) -> Draw:
    """A bare greeting."""
    hello, end = rng.choice(GREETINGS), rng.choice(("!", ".", ""))
    hello = rng.choice((hello, hello, hello.lower()))
    return (CLOSED, "greeting"), hello + end, f"Hello! {HELP}"


def small_talk(rng: Random) -> Draw:
    """A question or thanks with one fixed answer."""
    prompts, answer = rng.choice(SMALL_TALK)
    return (CLOSED, "talk", answer), rng.choice(prompts), answer


def capital(rng: Random) -> Draw:
    """The capital of a country."""
    country, city = rng.choice(CAPITALS)
    prompts = (f"What is the capital of {country}?", f"Name the capital of {country}.")
    return (CLOSED, "capital", country), rng.choice(prompts), f"The capital of {country} is {city}."


def introduction(rng: Random) -> Draw:
    """A greeting with a name, to be answered by name."""
    name, hello = rng.choice(NAMES), rng.choice(GREETINGS)
    prompt = f"{hello}! {rng.choice(('My name is', 'I am'))} {name}."
    return ("format", "name", hello, name), prompt, f"{hello}, {name}! {HELP}"


def repetition(rng: Random) -> Draw:
    """One word several times."""
    word, count = rng.choice(WORDS), rng.randint(2, 5)
    prompt = f"Say the word {word} {COUNTS[count]} times."
    return ("format", "repeat", word, count), prompt, " ".join([word] * count)


def bullets(rng: Random) -> Draw:
    """A list of words as bullets."""
    words = tuple(rng.sample(WORDS, rng.randint(2, 4)))
    prompt = f"List these words as bullets: {', '.join(words)}."
    return ("format", "bullets", *words), prompt, "\n".join("- " + word for word in words)


def json_object(rng: Random) -> Draw:
    """A JSON object of three fields."""
    name, age, color = rng.choice(NAMES), rng.randint(5, 60), rng.choice(COLORS)
    prompt = f"Write JSON with name {name}, age {age} and color {color}."
    answer = json.dumps({"name": name, "age": age, "color": color})
    return ("format", "json", name, age, color), prompt, answer


def sorting(rng: Random) -> Draw:
    """Words in alphabetical order."""
    words = tuple(rng.sample(WORDS, rng.randint(3, 4)))
    answer = ", ".join(sorted(words))
    return ("format", "sort", *sorted(words)), f"Sort these words: {', '.join(words)}.", answer


def reversal(rng: Random) -> Draw:
    """Words in reverse order."""
    words = tuple(rng.sample(WORDS, rng.randint(3, 4)))
    prompt = f"Reverse the order of: {', '.join(words)}."
    return ("format", "reverse", *words), prompt, ", ".join(words[::-1])


def sequence(rng: Random) -> Draw:
    """The next two numbers of an arithmetic sequence."""
    start, stride, shown = rng.randint(1, 30), rng.randint(2, 5), rng.randint(3, 5)
    numbers = [start + stride * index for index in range(shown + 2)]
    given = ", ".join(map(str, numbers[:shown]))
    prompt = f"Continue the sequence with two numbers: {given}."
    return ("format", "sequence", start, stride, shown), prompt, f"{numbers[-2]}, {numbers[-1]}"


# A category that takes long to learn is listed more than once.
CATEGORIES: Final[tuple[Callable[[Random], Draw], ...]] = (
    greeting, small_talk, capital, introduction, introduction, repetition, repetition,
    bullets, json_object, sorting, sorting, sorting, sorting, reversal, reversal,
    sequence, sequence, sequence,
)  # fmt: skip
