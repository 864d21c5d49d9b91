"""Hosts made of files, for tests: a folder that stands for / and programs that answer by script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from corral.host.system import Answer, System

OS_RELEASES = {
    "debian12": 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian 12"\n',
    "debian13": 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian 13"\n',
    "ubuntu2204": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04"\n',
    "ubuntu2404": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04"\n',
    "fedora": 'ID=fedora\nVERSION_ID=41\nPRETTY_NAME="Fedora Linux 41"\n',
    "nixos": 'ID=nixos\nVERSION_ID="24.11"\nPRETTY_NAME="NixOS 24.11"\n',
    "tumbleweed": 'ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\nPRETTY_NAME="Tumbleweed"\n',
}
QEMU_C_VIRTIOFSD = (
    "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7)\nusing FUSE kernel interface version 7.36\n"
)
ALIASES = {"qemu_system_x86_64": "qemu-system-x86_64", "qemu_kvm": "qemu-kvm"}
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Programs:
    """Answers by the name of the program that is asked; every question is kept in `asked`."""

    def __init__(self, **answers: str | Answer) -> None:
        self.answers = {ALIASES.get(name, name): answer for name, answer in answers.items()}
        self.asked: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []

    def __call__(self, argv: Sequence[str], env: Mapping[str, str]) -> Answer:
        self.asked.append(list(argv))
        self.environments.append(env)
        said = self.answers.get(Path(argv[0]).name, Answer(-1, "", "not scripted"))
        return said if isinstance(said, Answer) else Answer(0, said, "")

    def trials(self) -> int:
        """How often user namespaces were tried."""
        return sum("--unshare-user" in argv for argv in self.asked)


class Host:
    """A folder that stands for /, filled file by file."""

    def __init__(self, root: Path, release: str = "debian12") -> None:
        self.root = root
        self.put("/etc/os-release", OS_RELEASES[release])
        self.put(BOOT_ID, "boot-one\n")
        self.put("/proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")

    def put(self, path: str, text: str = "", mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def program(self, *paths: str) -> None:
        for path in paths:
            self.put(path, "#!", 0o755)

    def system(
        self, ask: Programs | None = None, *, uid: int = 0, environ: dict[str, str] | None = None
    ) -> System:
        settings = {"PATH": "/usr/bin:/bin", "HOME": "/home/u", "USER": "u", **(environ or {})}
        return System(root=self.root, environ=settings, uid=uid, ask=ask or Programs())


def debian_programs() -> Programs:
    """What QEMU, bubblewrap and virtiofsd of Debian 12 say."""
    return Programs(
        qemu_system_x86_64="QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n",
        bwrap="bubblewrap 0.8.0\n",
        virtiofsd=QEMU_C_VIRTIOFSD,
        git="",
    )
