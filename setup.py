"""Builds the compiled kernel; everything else stands in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [
            Extension("onefold.kernel.index", ["src/onefold/kernel/index.pyx"], extra_compile_args=["-O3"]),
            Extension("onefold.kernel.rowhash", ["src/onefold/kernel/rowhash.pyx"], extra_compile_args=["-O3"]),
        ],
        language_level="3",
    )
)
