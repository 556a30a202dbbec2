"""Builds the compiled kernel; everything else stands in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNEL = "src/onefold/kernel"
SHARED = {"index": ["partition.pxd"], "rowhash": ["siphash.pxd"], "scan": []}

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"onefold.kernel.{name}",
                [f"{KERNEL}/{name}.pyx"],
                depends=[f"{KERNEL}/{file}" for file in files],
                extra_compile_args=["-O3"],
            )
            for name, files in SHARED.items()
        ],
        include_path=["src"],
        language_level="3",
    )
)
