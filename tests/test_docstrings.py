"""First words of docstrings: a verb or a noun, not a question word."""

import ast
from pathlib import Path

import dlm

QUESTIONS = {"what", "which", "where", "how", "whether"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PACKAGE = Path(dlm.__file__).parent
FEW = 20


def questions(source):
    """Docstrings of a source that begin with a question word."""
    found = (
        ast.get_docstring(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, DOCUMENTED)
    )
    return [text for text in found if text and text.split()[0].strip(",.:;").lower() in QUESTIONS]


def test_question_words_are_recognised():
    source = '"""What it does."""\ndef f():\n    """whether."""\nclass A:\n    """A noun."""\n'
    assert questions(source) == ["What it does.", "whether."]


def test_few_docstrings_begin_with_a_question_word():
    found = [
        f"{path.relative_to(PACKAGE)}: {text.splitlines()[0]}"
        for path in PACKAGE.rglob("*.py")
        for text in questions(path.read_text(encoding="utf-8"))
    ]
    assert len(found) < FEW, "\n".join(sorted(found))
