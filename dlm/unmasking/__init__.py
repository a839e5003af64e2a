"""Rules as pure functions of a view: commits, revisions, ends of blocks, ends of rows.

One rule is one frozen dataclass. Most unmaskers are a selector: a score, a threshold, a quota.
"""
