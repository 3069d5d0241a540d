"""What setup.cfg cannot say: configs/ of the root is shipped as semmim_jax/configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=['semmim_jax*']), 'semmim_jax.configs'],
    package_dir={'semmim_jax.configs': 'configs'},
)
