"""Holds what runs inside a sandbox: two ends of a link, one with the program, one with its tests.

The modules import nothing but each other and little of the standard library, because they are sent
to interpreters that have no `dlm`. `values` defines values on the wire, `link` asks and
answers, `strangers` are the other end's objects, `program` serves a program's names, `tester` runs
the tests, which alone decide whether it passes.
"""
