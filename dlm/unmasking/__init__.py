"""What a step commits and revises, where a block ends, when a row stops: pure functions of a view.

One rule is one frozen dataclass. Most unmaskers are a selector: a score, a threshold, a quota.
"""
