"""Builds what is compiled; everything else stands in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

COMPILED = {
    "onefold.kernel.index": ["partition.pxd"],
    "onefold.kernel.rowhash": ["siphash.pxd"],
    "onefold.kernel.scan": [],
    "onefold.connectors.kafka.bridge.client": ["client.pxd", "librdkafka.pxd", "librdkafka.h"],
    "onefold.connectors.kafka.bridge.consumer": ["client.pxd", "librdkafka.pxd", "librdkafka.h"],
    "onefold.connectors.kafka.bridge.producer": ["client.pxd", "librdkafka.pxd", "librdkafka.h"],
}
"""Modules, each with the files beside it that it is made of."""


def extension(name: str, files: list[str]) -> Extension:
    """The names of librdkafka that the bridge uses are found when it is loaded, so nothing is linked here."""
    *package, module = name.split(".")
    folder = "/".join(["src", *package])
    return Extension(
        name,
        [f"{folder}/{module}.pyx"],
        depends=[f"{folder}/{file}" for file in files],
        include_dirs=[folder],
        extra_compile_args=["-O3"],
    )


setup(
    ext_modules=cythonize(
        [extension(name, files) for name, files in COMPILED.items()], include_path=["src"], language_level="3"
    )
)
