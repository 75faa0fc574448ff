# SPDX-License-Identifier: Apache-2.0
"""Folders that belong to the system: no product may be kept in one.

Told by name, for root may write everywhere and nothing else would stop it: who keeps
a product in `/var/lib/dpkg` has the system's package list replaced and pruned.
"""

import re
from pathlib import PurePath

_SYSTEM = frozenset({
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "lost+found",
    "nix",
    "ostree",
    "proc",
    "sbin",
    "snap",
    "sys",
    "sysroot",
    "usr",
})
_SHARED = frozenset({"media", "mnt", "opt", "srv", "var"})
# What a daemon may own on nobody's machine: people's things, and what is gone after
# a restart. A person's own updaterd may.
PEOPLES = frozenset({"home", "root", "run", "tmp"})
_IN_VAR = frozenset({"lib", "opt", "tmp", "www"})
_KNOWN = """
AccountsService NetworkManager PackageKit alternatives apparmor apt aptitude
bluetooth boltd ca-certificates certmonger chrony cloud cni colord command-not-
found containerd containers cups dbus dhcp dhcpcd dhclient dkms dnf docker dpkg
emacsen-common ebtables fail2ban firewalld flatpak fprint fwupd gdm gdm3 geoclue
git grub initramfs-tools ipa iptables iscsi iwd kubelet krb5kdc ldap lightdm
libvirt logrotate lxc lxd machines man-db mdadm misc mlocate nfs nftables os-
prober pacman pam pcp plymouth polkit-1 portables postgresql private python
redhat-branding rpm rpm-state rkhunter samba sddm selinux sgml-base shadow snapd
ssl sss sssd sudo systemd tpm tpm2-tss ubuntu-advantage ucf udisks2 unattended-
upgrades update-manager update-notifier upower usb_modeswitch usbutils vim
waydroid wicked xfonts xkb xml-core yum zypp
"""
_IN_VAR_LIB = frozenset(_KNOWN.split())
_OURS = re.compile(r"/var/(lib|cache)/updaterd(-[^/]*)?")  # of any instance


def fault(root: PurePath) -> str:
    """Return why `root` belongs to the system, or nothing."""
    parts = root.parts[1:]
    if not parts:
        return "it is the whole file system"
    if parts[0] in _SYSTEM and not _is_local(parts):
        return f"/{parts[0]} is the system's"
    if len(parts) == 1 and parts[0] in _SHARED | PEOPLES:
        return f"/{parts[0]} is for more than one product"
    if _OURS.fullmatch(str(root)):
        return "updaterd keeps its own things there"
    if parts[0] == "var" and (why := _fault_in_var(parts)):
        return why
    return ""


def _is_local(parts: tuple[str, ...]) -> bool:
    """Tell a folder below /usr/local or /usr/local/lib: what the owner installs."""
    local = parts[:2] == ("usr", "local")
    shared = {"bin", "etc", "games", "include", "man", "sbin", "share", "src", "lib"}
    return local and len(parts) > (3 if parts[2:3] and parts[2] in shared else 2)


def _fault_in_var(parts: tuple[str, ...]) -> str:
    if len(parts) < 3 or parts[1] not in _IN_VAR:
        return f"/{'/'.join(parts[:2])} is the system's"
    if parts[1] == "lib" and parts[2] in _IN_VAR_LIB:
        return f"/var/lib/{parts[2]} is the system's"
    return ""
