# SPDX-License-Identifier: Apache-2.0
"""Smaller forms in which a signed manifest travels.

A form is a bundle (docs/formats.md) of a tree of one file, the manifest: a full one, or
a delta from a manifest that machines have. The channel pointer names forms of what it
offers. What comes of one counts only where it has the hash that the release key signed;
without any, the manifest is fetched as it is.
"""

from collections.abc import Container, Iterable

from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import Fields
from updaterd.core.names import check_name, check_version
from updaterd.core.tree import File

MAX_MANIFESTS = 64
"""Most manifests of which one pointer names forms."""
MAX_FORMS = 17
"""Most forms of one manifest."""
LEAST = 16_384
"""Bytes of a manifest that is worth it: one round trip brings what is shorter."""
_NAME = "manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A blob from which a manifest is made.

    Attributes:
        base: sha256 of the manifest that it starts from; empty: of none.
    """

    sha256: str
    length: int
    codec: str
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """The forms of one manifest, `sha256`, of a release on a platform."""

    version: str
    platform: str
    sha256: str
    forms: tuple[Form, ...]

    def as_custom(self) -> dict[str, object]:
        """Return the JSON object that is signed."""
        return {
            "version": self.version,
            "platform": self.platform,
            "sha256": self.sha256,
            "forms": [
                {
                    "sha256": form.sha256,
                    "length": form.length,
                    "codec": form.codec,
                    **({"base": form.base} if form.base else {}),
                }
                for form in self.forms
            ],
        }


def read_forms(item: Fields) -> Forms:
    """Read the forms of one manifest.

    Raises:
        MalformedError: a member is missing, or not what it should be.
    """
    return Forms(
        version=check_version(item.text("version")),
        platform=check_name("platform", item.text("platform")),
        sha256=item.hexdigest("sha256"),
        forms=item.objects("forms", _form, most=MAX_FORMS),
    )


def _form(item: Fields) -> Form:
    return Form(
        sha256=item.hexdigest("sha256"),
        length=item.integer("length", low=1),
        codec=item.text("codec", longest=32),
        base=item.hexdigest("base") if "base" in item else "",
    )


def usable(
    forms: Iterable[Form],
    *,
    codecs: Container[str],
    have: Container[str],
    shorter_than: int,
) -> tuple[Form, ...]:
    """Return the forms that a machine can read, the shortest first.

    Args:
        forms: those that are named.
        codecs: names of the bundles that it can read.
        have: hashes of the manifests that it has.
        shorter_than: the manifest itself.
    """
    fit = [
        form
        for form in forms
        if form.codec in codecs
        and form.length < shorter_than
        and (not form.base or form.base in have)
    ]
    return tuple(sorted(fit, key=lambda form: form.length))


def file(sha256: str, length: int, *, name: str = _NAME) -> File:
    """Return the file that a manifest is in the trees of its forms."""
    return File(name, sha256, length, 0o644)
