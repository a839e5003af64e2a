"""Editors: the committed positions that a step revises."""
