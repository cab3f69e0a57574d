"""The whole way on real input: photo → engine → head in Blender → rendered .blend and a sheet of pictures."""
