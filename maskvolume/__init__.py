"""View synthesis of moving scenes from synchronized cameras, with multiplane images and a 3D mask volume."""

__version__ = "0.1.0"
