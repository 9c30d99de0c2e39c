"""Where an image on the command line lives: a registry, an OCI layout, or an archive.

`location` parses what is written, `source` says what an image can be asked and has the registry's answer, `files`
reads folders and archives alike, `layout` and `docker_save` are the two formats in them, `dest` writes.
"""

from proxy.images.dest import ImageDest, RegistryDest, open_dest
from proxy.images.location import Kind, Location, parse_location
from proxy.images.opening import open_source
from proxy.images.source import ImageSource, RegistryImage

__all__ = [
    "ImageDest",
    "ImageSource",
    "Kind",
    "Location",
    "RegistryDest",
    "RegistryImage",
    "open_dest",
    "open_source",
    "parse_location",
]
