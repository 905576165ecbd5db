"""How much of the public interface has types, by pyright: `verify_types.py PYTHON [LEAST]`.

PYTHON is that of an environment in which basedpyright and a copy of the package (not a link to the
source tree, which pyright takes for private) are installed. Ends with 1 below LEAST percent.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def main(python: str, least: float) -> int:
    """Run pyright, print what has no types, and say whether it is little enough."""
    folder = Path(python).absolute().parent
    env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    env.pop("VIRTUAL_ENV", None)
    command = [str(folder / "basedpyright"), "--verifytypes", "routecore", "--ignoreexternal"]
    ran = subprocess.run(
        [*command, "--outputjson", "--pythonpath", python], env=env, capture_output=True, text=True
    )
    found = json.loads(ran.stdout)["typeCompleteness"]
    score = 100 * found["completenessScore"]
    for symbol in found["symbols"]:
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            reasons = [said["message"].splitlines()[0] for said in symbol["diagnostics"]]
            print(f"{symbol['name']}: {'; '.join(dict.fromkeys(reasons))}")
    counts = found["exportedSymbolCounts"]
    print(
        f"pyright --verifytypes: {score:.1f}% of {sum(counts.values())} public symbols have types"
    )
    return 0 if score >= least else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 99.0))
