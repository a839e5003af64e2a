"""Programs in answers: `code-v2` on answers of every shape, and Dream's cleaning."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.evals.graders.code import cut_at, sanitized
from dlm.sandbox.programs import Program, extract

ADD = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (ADD, "bare"),
        (ADD + "    oops(\n", "bare, cut"),
        (f"Here:\n```python\n{ADD}```\nDone.", "fence"),
        (f"```python\nimport os\n```\n```py\n{ADD}```", "fence"),
        (f"```python\n{ADD}", "fence"),
        (f"Sure.\nimport math\n{ADD}That is it, I think.", "bare, cut"),
        ("add = lambda a, b: a + b", "whole"),
    ],
)
def test_programs_in_answers(text, rule):
    program = extract(text, "add")
    assert program.rule == rule
    space = {}
    exec(program.source, space)
    assert space["add"](2, 3) == 5


def test_programs_of_no_known_name():
    text = "Use this:\n```\ndef area(r):\n    return r * r\n```\nassert area(2) == 4"
    assert extract(text) == Program("def area(r):\n    return r * r\n", "first fence")
    assert extract(text, "add").rule == "first fence"
    opened = "def area(r):\n    return r * r\n```\nThis is the area."
    assert extract(opened) == Program("def area(r):\n    return r * r\n", "bare")
    assert extract("nothing here at all", "f") == Program("nothing here at all", "whole")


def test_stop_strings():
    assert cut_at("a\nif b\ndef c", ("\ndef", "\nif")) == "a"
    assert cut_at("a", ("\ndef",)) == "a"


@given(st.text(alphabet="`\n defadd():pass#'\"x", max_size=60))
def test_no_text_breaks_the_extraction(text):
    program = extract(text, "add")
    assert isinstance(program.source, str)


ONE = "def f(x):\n    return x + 1\n"
TOLD = 'def f(x):\n    """Add.\n\n    ```\n    f(1)\n    ```\n    """\n    return x + 1\n'
SPLIT = "First import math:\nimport math\nThen:\ndef f(x):\n    return math.floor(x) + 1\nOk"
SHAPES = {
    "a fence that the prompt has opened": f"{ONE}```\nThis adds one.",
    "the same with a docstring": f"{TOLD}```\nThis adds one.",
    "the same and a second fence": f"{ONE}```\nTry it:\n```python\nprint(f(1))\n```",
    "prose around": f"Here:\n```python\n{ONE}```\nDone",
    "a mark in a docstring": f"```python\n{TOLD}```\nDone\n```python\nprint(f(1))\n```",
    "a fence in a docstring": f"```python\n{TOLD.replace('```', '```python', 1)}```",
    "a mark in a string": '```python\ndef f(x):\n    s = "```"\n    return x + 1\n```',
    "a mark in a comment": f"```python\n# ``` is a fence\n{ONE}```\nDone",
    "a mark in a comment inside": "```\ndef f(x):\n    # ``` is one\n    return x + 1\n```",
    "prose that parses": f"Note: see\nf(1) == 2\n\n{ONE}\nreturn value\nDone",
    "in a numbered list": "1. So:\n\n   ```py\n   def f(x):\n       return x + 1\n   ```\n2. Done",
    "in a list": "- ```python\n  def f(x):\n      return x + 1\n  ```\n- Done",
    "in a list with tabs": "*\t```python\n\tdef f(x):\n\t\treturn x + 1\n\t```",
    "in a quotation": "> ```python\n> def f(x):\n>     return x + 1\n> ```\n> Done",
    "never closed": f"```python\n{ONE}",
    "never closed, prose after": f"```python\n{ONE}\nThis adds one to x.",
    "another language first": f"```js\nfunction f(x) {{ return x }}\n```\n```python\n{ONE}```",
    "output that looks like code": f"```text\ndef f(x):\n    return 0\n```\n```py\n{ONE}```",
    "a shell first": f"```bash\npip install it\n```\n{ONE}",
    "only another language": f"```text\n{ONE}```",
    "tildes": f"~~~python\n{ONE}~~~\nDone",
    "four tildes and a name": f"~~~~ Python3\n{ONE}~~~~",
    "four marks": f"````python\n{TOLD}````",
    "a fence in a fence": f"````markdown\nSo:\n```python\n{ONE}```\n````",
    "attributes": f"```{{.python .numberLines}}\n{ONE}```",
    "Python3": f"```Python3\n{ONE}```",
    "a blank before the name": f"``` python\n{ONE}```",
    "a title": f'```python title="f.py"\n{ONE}```',
    "other line ends": f"```python\n{ONE}```\nDone".replace("\n", "\r\n"),
    "old line ends": f"```python\n{ONE}```\nDone".replace("\n", "\r"),
    "behind prose": f"The code: ```python\n{ONE}```",
    "on one line": "```python def f(x): return x + 1```",
    "on one line without a name": "```def f(x): return x + 1```",
    "closed on the last line": "```python\ndef f(x):\n    return x + 1```",
    "prose behind the end": f"```python\n{ONE}``` This adds one.",
    "no fence": f"Sure, here it is:\n\n{ONE}\nThis is it. Done\nDone",
    "no fence and a word": f"Sure:\n{ONE}Done",
    "no fence and remarks": f"{ONE}Note: fast\nComplexity: O(n)\nEnjoy",
    "no fence in a list": "1. So:\n\n       def f(x):\n           return x + 1\n\n2. Done",
    "no fence and headings": f"# Solution\n{ONE}\n## Explanation\nIt adds.",
    "no fence and tags": f"<answer>\n{ONE}</answer>",
    "no fence, then one": f"{ONE}\nUsage:\n```python\nprint(f(1))\n```",
    "imports apart": SPLIT,
    "a constant before": "Sure:\nONE = 1\ndef f(x):\n    return x + ONE\nOkay then",
    "decorators": "So:\nfrom functools import cache\n\n@cache\ndef f(x):\n    return x + 1\nOk",
    "typed": ">>> def f(x):\n...     return x + 1\n...\n>>> f(1)\n2\n",
    "typed in a fence": "```pycon\n>>> def f(x):\n...     return x + 1\n>>> f(1)\n2\n```",
    "tried afterwards": f"{ONE}\n>>> f(1)\n2",
    "a method before": f"```py\nclass S:\n    def f(self, x): pass\n```\n```py\n{ONE}```",
    "in a branch": "```python\nif True:\n    def f(x):\n        return x + 1\n```",
    "a variable": "```python\nf = lambda x: x + 1\n```",
    "a variable in prose": "Sure:\nf = lambda x: x + 1\nIt adds.",
    "a second version": f"```python\n{ONE}```\nOr:\n```python\ndef f(x):\n    return 1 + x\n```",
    "a stray blank": "```python\n def f(x):\n     return x + 1\n```",
    "a magic line": f"```python\n!pip install it\n{ONE}```",
    "a main guard": f"```python\n{ONE}\nif __name__ == '__main__':\n    print(f(1))\n```",
    "faulty first": f"```python\ndef f(x:\n    return\n```\nBetter:\n```python\n{ONE}```",
    "other letters": f"Да, вот «f» 🙂:\n```python\n# größer\n{ONE}```",
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_answers(name):
    program = extract(SHAPES[name], "f")
    space = {"__name__": "none"}
    exec(program.source, space)
    assert space["f"](2) == 3
    assert "```" not in re.sub('#[^\n]*|""".*?"""|".*?"', "", program.source, flags=re.DOTALL)


def test_the_first_of_several_counts():
    two = "```python\ndef f(x):\n    return 1\n```\n```python\ndef f(x):\n    return 2\n```"
    assert extract(two, "f") == Program("def f(x):\n    return 1\n", "fence")
    other = f"```text\ndef f(x):\n    return 0\n```\n{two}"
    assert "return 1" in extract(other, "f").source, "no other language while there is Python"


def test_what_is_not_at_the_top():
    """A method is better than nothing, and a coroutine is a definition too."""
    method = "Here:\n```python\nclass S:\n    def f(self, x):\n        return x\n```"
    assert extract(method, "f").source.startswith("class S:")
    assert extract("```python\nasync def f(x):\n    return x\n```", "f").rule == "fence"
    assert extract("```python\ndef größe(x):\n    return x\n```", "größe").rule == "fence"


def test_what_holds_no_program():
    for text in ("", "```", "```python\n```", "I do not know.", "\0", "~~~", ">", "def f(:"):
        assert "return" not in extract(text, "f").source


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part",
    [
        *(
            "```\n",
            "'''\n```\n",
            "f = (\n",
            "def f(:\n",
            "`",
            ">>> f = (\n",
            "```python\nf = '''\n",
        ),
        *("from f\n", "f(\n", "f = 1 +\n", "(", "-", "> ```\n", "def f():\n  return 1\n"),
    ],
)
def test_long_answers_take_no_time(part):
    extract(part * 2000, "f")


# Dream's cleaning of code

CIRCLE = 'import math\n\ndef area(r):\n    """Of a circle."""\n'


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("    return math.pi * r", "import math\ndef area(r):\n    return math.pi * r\n"),
        (
            "Sure:\n```python\ndef half(x):\n    return x / 2\n\n"
            "def area(r):\n    return half(r)\n```\n",
            "import math\ndef half(x):\n    return x / 2\ndef area(r):\n    return half(r)\n",
        ),
        (
            "```python\ndef area(r):\n    return K * r\n\nK = 3\nL = 4\nprint(area(2))\n```",
            "import math\ndef area(r):\n    return K * r\nK = 3\n",
        ),
        ("    return 1\nand so on and on", "import math\ndef area(r):\n    return 1\n"),
        ("```python\n    pass\n```", "import math\n"),
    ],
)
def test_dreams_cleaning(text, source):
    """The prompt's own stub returns nothing and goes; what the function does not need goes too."""
    found = re.sub(r'    """.*?"""\n', "", sanitized(text, "area", CIRCLE).source)
    assert found == source


def test_the_longest_run_that_parses_wins():
    text = "x = 1\ny = (\nz = 2\ndef f():\n    return z\n"
    assert sanitized(text, "f", "").source == "z = 2\ndef f():\n    return z\n"
    assert sanitized("((((", "f", "").source == "\n"


def test_an_attribute_mentions_its_last_name_alone():
    text = "def make():\n    return 1\ndef f(a):\n    return make().x + a.step\n"
    text += "def step():\n    return 2\n"
    assert "def make" not in sanitized(text, "f", "").source
    assert "def step" in sanitized(text, "f", "").source


@given(st.text(max_size=200))
def test_cleaning_takes_any_text(text):
    sanitized(text, "f", "import os\n")


def test_cleaning_takes_what_is_nested_too_deep():
    """Parsed without trouble, and too deep to be written down again."""
    deep = "def f():\n    return " + "+".join(["1"] * 600)
    assert sanitized(deep, "f", "").rule == "sanitized"


def test_a_body_that_a_fence_ends_is_kept_and_no_program_holds_a_byte_order_mark():
    body = "    return x + 1\n```\nThis adds one."
    assert extract(body, "f").source == "    return x + 1\n"
    marked = "```python\n\ufeffdef f(x):\n    return x + 1\n```"
    assert extract(marked, "f").source == "def f(x):\n    return x + 1\n"
