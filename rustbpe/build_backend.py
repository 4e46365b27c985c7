"""maturin builds this package; here, pip is told first what to do where there is no Rust."""

import shutil

from maturin import *  # noqa: F403

if shutil.which("cargo") is None:
    raise SystemExit(
        "\nRustBPE is compiled by Rust's cargo, which is not on the PATH.\n"
        "Install Rust from your system's packages or by rustup and try again; or go on without:\n"
        "RustBPE is optional, MiniLLM's own trainer in Python learns the very same vocabulary.\n"
    )
