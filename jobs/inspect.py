"""Look at imagery and labels before anything runs: what the files are, what is doubtful, and an experiment that fits.

    python jobs/inspect.py --images /imagery/ortho/ --labels /imagery/masks/
    python jobs/inspect.py --images '/imagery/*.tif' --labels buildings.gpkg --write mytown.yaml
    python jobs/pipeline.py --config mytown.yaml

Nothing is changed but the file of --write. What it says is doubtful is what every other job says, too.
"""

from __future__ import annotations

import sys

if __name__ == "inspect":
    # `python jobs/NAME.py` puts this folder first on the path of driver and workers, and the standard library has a
    # module of this name: whoever asks for that one gets it.
    import importlib.util
    import sysconfig

    spec = importlib.util.spec_from_file_location("inspect", f"{sysconfig.get_path('stdlib')}/inspect.py")
    assert spec is not None and spec.loader is not None
    sys.modules["inspect"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["inspect"])
else:
    from typing import NoReturn

    from jobs._inspect import Flags as Flags
    from jobs._inspect import run as run_described

    def run() -> NoReturn:
        """Runs the command and ends the process with its exit code."""
        run_described(__doc__ or "")

    if __name__ == "__main__":
        run()
