"""Installs keras_lottery. Lower bounds are versions the tests were run on."""

import pathlib

import setuptools

here = pathlib.Path(__file__).parent
version = {}
for line in (here / "keras_lottery/__init__.py").read_text().splitlines():
    if line.startswith("__version__"):
        exec(line, version)

extras = {
    "report": ["matplotlib>=3.9"],
    "data": ["tensorflow-datasets>=4.9.6", "importlib_resources"],
    "serving": ["tensorflow-serving-api>=2.18"],
    "onnx": ["onnx>=1.18", "onnxruntime>=1.31", "tf2onnx>=1.17"],
    "lite": ["ai-edge-litert>=2.3"],
}
extras["all"] = sorted({each for group in extras.values() for each in group})
# Sweeps on many machines: large, and nothing else needs it.
extras["ray"] = ["ray>=2.60"]
# Not in `test`: it wants a newer Keras and TensorFlow than the oldest that are
# supported. Its tests are skipped without it.
extras["hub"] = ["keras-hub>=0.32"]
extras["test"] = [
    *extras["all"],
    *extras["ray"],
    "hypothesis>=6.100",
    "ipykernel>=6.29",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "pandas>=2.2",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
]

extras["bench"] = ["torch>=2.2"]

setuptools.setup(
    name="keras_lottery",
    version=version["__version__"],
    description=(
        "Finds, questions and ships lottery tickets (sparse networks) in Keras."
    ),
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "keras_lottery/data/digits_LICENSE.txt"],
    python_requires=">=3.11,<3.14",
    # The config files lie at the top of a checkout, and in the package of a
    # wheel.
    packages=[
        *setuptools.find_packages(include=["keras_lottery*"]),
        "keras_lottery.configs",
    ],
    package_dir={"keras_lottery.configs": "configs"},
    package_data={
        "keras_lottery": ["py.typed"],
        "keras_lottery.data": ["digits.csv.gz", "digits_LICENSE.txt"],
    },
    install_requires=[
        "absl-py>=1.4",
        "filelock>=3.12",
        "keras>=3.13",
        "ml_collections>=1.1",
        "ml_dtypes>=0.4",
        "numpy>=2.0",
        "safetensors>=0.4.5",
        "tensorflow>=2.18",
        "tensorflow-model-optimization>=0.8.1",
        "tf_keras>=2.18",
        "tqdm>=4.60",
    ],
    extras_require=extras,
    entry_points={
        "console_scripts": ["keras-lottery = keras_lottery.cli.main:main"]
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords=[
        "keras",
        "pruning",
        "sparsity",
        "lottery ticket hypothesis",
        "tensorflow",
    ],
)
