from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.images import sources

DEB822 = """\
# the archive
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcdef
 -----END PGP PUBLIC KEY BLOCK-----

types: deb
uris: https://nodes.example/node
suites: nodistro
components: main
trusted: yes

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""

ONE_LINE = """\
# deb http://off.example/debian bookworm main
deb [arch=amd64,arm64 signed-by=/etc/k.gpg trusted=yes] http://ftp.example/debian/ bookworm main
deb-src http://ftp.example/debian bookworm main # sources
deb https://docker.example/linux/debian bookworm stable # not the distribution
deb http://ftp.example/debian bookworm-backports main
"""


def test_both_formats_are_read() -> None:
    found = sources.parse("debian.sources", DEB822)
    assert [archive.suites for archive in found] == [
        ("bookworm", "bookworm-updates"),
        ("bookworm-security",),
        ("nodistro",),
    ]
    found = sources.parse("sources.list", ONE_LINE)
    assert [archive.uris[0] for archive in found] == [
        "http://ftp.example/debian/",
        "https://docker.example/linux/debian",
        "http://ftp.example/debian",
    ]


def test_keys_and_options_are_kept_as_they_are() -> None:
    debian, security, _ = sources.parse("debian.sources", DEB822)
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n" in debian.text
    assert "\n .\n abcdef\n" in security.text
    archive = sources.parse("a.list", ONE_LINE)[0]
    assert "Architectures: amd64 arm64\n" in archive.text
    assert "Signed-By: /etc/k.gpg\n" in archive.text


def test_no_archive_is_trusted_without_a_signature() -> None:
    archives = sources.parse("a.list", ONE_LINE) + sources.parse("b.sources", DEB822)
    assert not any("trusted" in archive.text.lower() for archive in archives)


def test_only_the_releases_own_archives_give_its_kernel() -> None:
    archives = sources.parse("a.list", ONE_LINE) + sources.parse("b.sources", DEB822)
    own = sources.for_release(archives, "bookworm")
    assert [archive.uris[0] for archive in own] == [
        "http://ftp.example/debian/",
        "http://mirror.example/debian",
        "http://mirror.example/debian-security",
    ]


def test_a_newer_suite_comes_from_this_hosts_mirror() -> None:
    archives = sources.parse("b.sources", DEB822)
    assert sources.debian_mirrors(archives) == [
        "http://mirror.example/debian",
        "http://deb.debian.org/debian",
    ]
    assert sources.debian_mirrors([]) == ["http://deb.debian.org/debian"]
    suite = sources.debian_suite("http://mirror.example/debian", "trixie", "/k.gpg")
    assert suite.text == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n"
        "Components: main\nSigned-By: /k.gpg\n"
    )


@given(st.text(max_size=200), st.sampled_from(["a.list", "a.sources"]))
def test_no_sources_file_is_an_exception(content: str, name: str) -> None:
    sources.parse(name, content)
