"""The families that admend knows; the first one that opens an image's database has it."""

from proxy.engine.families.apk import ApkFamily
from proxy.engine.families.dpkg.family import DpkgFamily
from proxy.engine.family import Family

FAMILIES: tuple[Family, ...] = (DpkgFamily(), ApkFamily())
