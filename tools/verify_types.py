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
    foreign, rest = 0, []
    for symbol in found["symbols"]:
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            reasons = [said["message"].splitlines()[0] for said in symbol["diagnostics"]]
            if _is_hosts(symbol["name"], reasons):
                foreign += 1
            else:
                rest.append(symbol["name"])
                print(f"{symbol['name']}: {'; '.join(dict.fromkeys(reasons))}")
    counts = found["exportedSymbolCounts"]
    total = sum(counts.values())
    score = 100 * (1 - len(rest) / (total - foreign))
    raw = 100 * found["completenessScore"]
    print(
        f"pyright --verifytypes: {raw:.1f}% of {total} public symbols, "
        f"{score:.1f}% without the {foreign} that derive from a host's classes, as no host is here"
    )
    return 0 if score >= least else 1


def _is_hosts(name: str, reasons: list[str]) -> bool:
    """Whether a class derives from one of a host's, or a name stands for such a class."""
    if not name.startswith("routecore.integrations."):
        return False
    derives = ("Type of metaclass unknown", "Type of base class", "Ambiguous base class override")
    return all(not reason or reason.startswith(derives) for reason in reasons)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 99.0))
