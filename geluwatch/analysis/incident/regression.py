"""Writes the test that fails as long as the fault of a bundle is there."""

from __future__ import annotations

import json
from pathlib import Path

from geluwatch import files
from geluwatch.analysis.incident.show import moment
from geluwatch.bundles.bundle import Bundle
from geluwatch.errors import IncidentError

_TEST = '''"""{model} {version}, {when}: {reason}

Written by `geluwatch incident replay`. It fails as long as the fault is there; keep the bundle with it.
"""

{imports}

BUNDLE = {bundle}
LAYER = {layer}


def test_the_layer_is_finite() -> None:
    """{docstring}"""
    seen = {call}
    assert LAYER not in seen.nonfinite, str(seen)
'''


def source(bundle: Bundle, path: Path, layer: str | None, *, model: str | None, inputs: str | None, whole: bool) -> str:
    """Return the text of a pytest file.

    Args:
        bundle: The bundle, which the test reads.
        path: Where the file will be.
        layer: The layer that has to be finite.
        model: `package.module:function` that makes the model; None where the declared GELU is run on the rows.
        inputs: `package.module:function` or an `.npz` file; None for those of the bundle.
        whole: Whether a whole pass is run, or the GELU on the rows.
    """
    run = "run_pass" if whole else "run_rows"
    imports = ["from pathlib import Path", "", f"from geluwatch.analysis.incident import {run}"]
    arguments = ["BUNDLE"]
    if model is not None:
        module, _, function = model.partition(":")
        imports.append(f"from {module} import {function.partition('.')[0]}")
        arguments.append(f"{function}()")
    if inputs is not None and whole:
        reader = "from_file" if inputs.endswith(".npz") else "from_text"
        imports.insert(3, f"from geluwatch.analysis.incident.inputs import {reader}")
        arguments.append(f"{reader}({_place(Path(inputs), path)})" if reader == "from_file" else f"{reader}({json.dumps(inputs)})")
    what = "The pass of the incident, run again" if whole else "The GELU, run again on the rows of the incident"
    manifest = bundle.manifest
    return _TEST.format(
        model=_plain(manifest["model"]),
        version=_plain(manifest["model_version"]),
        when=moment(manifest["time"]),
        reason=_plain(manifest["reason"]),
        imports="\n".join(imports),
        bundle=_place(bundle.path, path),
        layer=json.dumps(layer),
        docstring=f"{what}, gives no NaN and no Inf at the layer.",
        call=f"{run}({', '.join(arguments)})",
    )


def write(path: Path, content: str) -> None:
    """Write a new file, all of it or nothing.

    Raises:
        IncidentError: There is such a file, or it cannot be written.
    """
    try:
        files.create(path, content.encode())
    except FileExistsError:
        raise IncidentError(f"{path} exists already, and is not written over; give another name or remove it.") from None
    except OSError as failure:
        raise IncidentError(f"{path} cannot be written ({failure.strerror}); give another place.") from None


def _place(target: Path, test: Path) -> str:
    """Return an expression for a path: seen from the test where it lies in the test's folder or below, else absolute."""
    target, home = target.resolve(), test.resolve().parent
    if target.is_relative_to(home):
        return f"Path(__file__).parent / {json.dumps(target.relative_to(home).as_posix())}"
    return f"Path({json.dumps(str(target))})"


def _plain(text: str) -> str:
    """Return a text that ends no string."""
    return text.replace("\\", "/").replace('"', "'")
