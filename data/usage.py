"""What --help prints: the settings, and the comments beside them in imagenet_main.py."""
import os
import re

from data import settings


def text(path, s):
    """All settings with values and meanings, str. The meanings are the comments in this file."""
    meanings = _comments(path)
    lines = ["usage: python %s [--NAME=value ...]; [P] is the paper, [C] the authors' code"
             % os.path.basename(path)]
    for name, value in vars(s).items():
        lines.append('--%s=%s' % (name, settings.as_text(value)))
        lines += ['    ' + comment for comment in meanings.get(name, [])]
    return '\n'.join(lines)


def _comments(path):
    """The comments beside and below the first value of each name: dict from name to list of str."""
    comments = {}
    name = None
    with open(path, encoding='utf-8') as file:
        for line in file:
            code, _, comment = line.partition('#')
            assignment = re.match(r'\s*([A-Z][A-Z0-9_]*)\s?=', code)
            if assignment and assignment.group(1) not in comments:
                name = assignment.group(1)
                comments[name] = []
            elif code.strip() or not line.startswith(' '):
                name = None
            if name and comment.strip():
                comments[name].append(comment.strip())
    return comments
