"""Photo files to aligned crops. Decoding, detection and cutting need no torch; finding points does."""

from geoinv_core.photo.align import crop_of_points
from geoinv_core.photo.decode import Photo, load
from geoinv_core.photo.detect import Face, find_faces
from geoinv_core.photo.framing import EG3D, FFHQ, Framing
from geoinv_core.photo.prepare import Crop, prepare

__all__ = [
    "EG3D",
    "FFHQ",
    "Crop",
    "Face",
    "Framing",
    "Photo",
    "crop_of_points",
    "find_faces",
    "load",
    "prepare",
]
