"""From a face crop to the generator's code, the camera and the labels."""

from geoinv_core.encoder.config import EncoderConfig
from geoinv_core.encoder.network import Encoded, Encoder, camera_of, pose_of
from geoinv_core.encoder.store import load_encoder, save_encoder

__all__ = ["Encoded", "Encoder", "EncoderConfig", "camera_of", "load_encoder", "pose_of", "save_encoder"]
