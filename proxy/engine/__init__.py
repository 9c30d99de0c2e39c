"""The engine: layers and packages in, a patched image out. Plain functions over values, no IO of its own."""
