"""Prints what a vLLM wheel requires, but torch and its kin: `requirements.py WHEEL`."""

import email
import sys
import zipfile

from packaging.requirements import Requirement

INSTALLED_BEFORE = ("torch", "torchvision", "torchaudio", "torchcodec")

with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
for line in metadata.get_all("Requires-Dist", ()):
    wanted = Requirement(line)
    here = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    if here and wanted.name not in INSTALLED_BEFORE:
        wanted.marker = None
        print(wanted)
