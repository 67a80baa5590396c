"""No file of the repository tells where it was written; the page of settings is that of the code."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: What git ignores, and git itself.
IGNORED = re.compile(r"\.git|\.venv.*|\.headrace|__pycache__|\.\w+_cache|\.hypothesis|build|dist|htmlcov|.*\.egg-info")

#: Absolute paths of one person's machine, and where packages come from: both differ from user to user.
FORBIDDEN = re.compile(
    r"(?<![\w.*$}-])/(?:root|work|home/\w+)(?![\w-])"
    r"|\b(?:pypi|npm|pythonh|deb\.deb)\w*\.(?:org|com|net|io)\b"
    r"|--(?:extra-)?index-url|--find-links|--trusted-host",
    re.IGNORECASE,
)


def texts() -> Iterator[tuple[Path, str]]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not IGNORED.fullmatch(name)]
        files = [name for name in files if name != ".git"]  # in a worktree it is a file that names the repository
        for name in files:
            path = Path(folder, name)
            try:
                yield path.relative_to(ROOT), path.read_text("utf-8")
            except UnicodeDecodeError:
                continue


def test_no_file_names_a_path_of_one_machine_or_a_package_registry() -> None:
    found = [
        f"{path}:{number}: {line.strip()[:150]}"
        for path, text in texts()
        if path != Path(__file__).relative_to(ROOT)
        for number, line in enumerate(text.splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert found == []


def test_shell_scripts_stop_at_the_first_error() -> None:
    scripts = {path: text for path, text in texts() if text.startswith("#!/usr/bin/env bash")}
    assert Path(".ci/run") in scripts
    assert [path for path, text in scripts.items() if "\nset -euo pipefail\n" not in text] == []


def test_the_page_of_settings_is_that_of_the_code() -> None:
    path = ROOT / "docs" / "generate_settings.py"
    spec = importlib.util.spec_from_file_location("generate_settings", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text("utf-8") == module.settings_page(), "run: .venv/bin/python docs/generate_settings.py"
