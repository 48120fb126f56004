"""Every way this project fails, in one table.

``FleetError``
├── ``InputError``           what we were given cannot be used; nothing was touched
├── ``RefusedError``         the peer answered, and the answer is no; trying again changes nothing
├── ``LinkError``            the way to the peer failed; trying again may help
└── ``UnknownOutcomeError``  everything was sent and the answer was lost; only a look at the peer tells

An error is one sentence (what was tried on which thing, what was seen, what to do next) with a stable
``code`` from ``CODES``. docs/troubleshooting.md has one row for each code; a test keeps the two equal.
"""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass(frozen=True)
class Code:
    """What a code stands for: its usual cause, and what the user does next."""

    cause: str
    remedy: str


CODES: t.Final[dict[str, Code]] = {
    # names and the registry
    "invalid_hostname": Code(
        "a name is not `esp32-` and six hex digits", "correct the hostname in the registry or the inventory"
    ),
    "duplicate_hostname": Code(
        "two entries name the same last three MAC bytes", "remove one of the two entries from the registry"
    ),
    "invalid_type": Code(
        "a module type is not snake_case", "correct the type in the registry; it must name a firmware folder"
    ),
    "invalid_entry": Code("an entry of the registry has the wrong shape", "correct that entry in the web app"),
    "registry_absent": Code(
        "the database answers, and has no document of modules",
        "set the RV's modules up in the web app, or check `mongodb_database`",
    ),
    "registry_invalid": Code("`mcu_modules` is not a list", "repair the document `main` in `system_config`"),
    "database_unreachable": Code(
        "MongoDB does not answer", "start the RV's containers, or check `mongodb_uri` and `container`"
    ),
    "database_refused": Code("MongoDB answered with an error", "read the error; check the user and its rights"),
    "container_unknown": Code(
        "the container is not there, or has no address", "run `docker ps` on the Pi and give its name as `container`"
    ),
    # files and options
    "invalid_option": Code("an option has a value that cannot be used", "correct the option that the sentence names"),
    "invalid_env_file": Code(
        "the environment file cannot be read or parsed", "repair the file that the sentence names"
    ),
    "invalid_frame": Code("a CAN message is malformed", "repair the program that sent it"),
    "image_missing": Code("the firmware file is not there", "build it, or check `fleet_firmware_dir`"),
    "image_empty": Code("the firmware file has no bytes", "build it again"),
    "image_truncated": Code("the firmware file ends too early", "copy it again"),
    "image_magic": Code(
        "the file is not an Espressif application image", "give the application's .bin, not the ELF or the merged image"
    ),
    "image_checksum": Code("the image's checksum does not match", "copy or build it again"),
    "image_digest": Code("the image's appended SHA-256 does not match", "copy or build it again"),
    "wrong_chip": Code("the image is for another chip than the module has", "build it for the module's chip"),
    "address_unknown": Code(
        "the type has one image per CAN address, and the module has no usable `addr`",
        "set the module's address in the registry",
    ),
    # the broker, the bridge and the bus
    "broker_unreachable": Code(
        "the broker's host cannot be reached or does not answer", "check that the broker runs and `mqtt_url` is right"
    ),
    "broker_refused": Code("the broker refused the connection", "check the port, and that the broker listens there"),
    "broker_credentials": Code(
        "the broker does not accept the user or its password",
        "correct `mqtt_username` and `mqtt_password` or the environment file",
    ),
    "broker_untrusted": Code(
        "the broker's certificate is not trusted",
        "give its CA as `mqtt_ca_cert`, and check the name in `mqtt_url` and the clock",
    ),
    "broker_lost": Code("the connection to the broker was lost", "look at the broker's log, and run it again"),
    "bridge_down": Code(
        "the CAN bridge says that it is offline, or that the broker does not let it listen",
        "`systemctl status cantomqtt` on the Pi",
    ),
    "bus_off": Code(
        "the CAN controller is off or not there", "check the wiring and termination, then `ip -details link show can0`"
    ),
    # reaching a module and uploading
    "name_unknown": Code(
        "no address is known for the module's name", "check that it has joined the Wi-Fi, or give its `address`"
    ),
    "no_answer": Code("the module did not answer", "check its power, its Wi-Fi and that its type is right"),
    "no_connection_back": Code(
        "the module accepted, but never connected back",
        "client isolation, a firewall on the upload ports, or a partition too small for the image",
    ),
    "port_unavailable": Code(
        "none of the upload ports can be opened", "free one of `host_ports`, or correct `host_ip`"
    ),
    "password_required": Code("the module asks for a password", "give its `password`"),
    "wrong_password": Code("the module does not accept the password", "correct its `password`"),
    "upload_stalled": Code("the module stopped taking data", "move it nearer to the access point, and run it again"),
    "upload_reset": Code(
        "the connection broke during the upload", "run it again; power-cycle the module when that repeats"
    ),
    "upload_unfinished": Code(
        "the module did not accept the whole image in time", "raise `upload_timeout`, or improve its Wi-Fi"
    ),
    "outcome_unknown": Code(
        "all was sent, and the final answer was lost", "run it again: the module's version report decides"
    ),
    "image_rejected": Code("the module refused the image", "check that the image is for this module; build it again"),
    "no_space": Code("the module's partition is too small for the image", "build a smaller image"),
    "flash_failed": Code(
        "the module could not write its flash", "try once more with `force`; replace the module when it repeats"
    ),
    "ota_not_ready": Code("the module cannot start an update", "power-cycle the module, then run it again"),
    "invalid_answer": Code(
        "the peer answered what no such device answers", "check that the address belongs to a module"
    ),
    # the deployment bundle
    "bundle_missing": Code("the bundle is not there", "check `path`, or build it with package.yml"),
    "bundle_truncated": Code("the bundle ends too early", "copy or download it again"),
    "bundle_damaged": Code(
        "some bytes of the bundle are not the ones that its manifest names",
        "copy or download it again, or build it anew",
    ),
    "bundle_unsigned": Code(
        "the bundle has no signature, and `signature_policy` is `required`", "sign it: build it with a `signing_key`"
    ),
    "bundle_legacy": Code(
        "the bundle was made by the old script: it has no manifest",
        "build it anew with package.yml, or take `signature_policy: if_present` where you trust where it comes from",
    ),
    "bundle_unlisted": Code(
        "a folder holds files that its manifest does not name, or that are no regular files",
        "unpack the bundle into an empty folder",
    ),
    "manifest_invalid": Code("the manifest is malformed", "build the bundle anew"),
    "manifest_format": Code("the manifest has a newer format than this collection reads", "update trailcurrent.fleet"),
    "unsafe_path": Code(
        "a path leads out of its folder, is a link or a stranger's, or is not the same on every system",
        "rename or repair what the sentence names",
    ),
    "signature_invalid": Code(
        "the signature is not one of this manifest", "copy or download the bundle again; sign it again if it is yours"
    ),
    "signature_namespace": Code(
        "the signature, or the key, is for another purpose than deployments",
        "sign with namespace `trailcurrent-deployment`, and allow it for that key in `allowed_signers`",
    ),
    "signer_unknown": Code("the key is not in `allowed_signers`", "trust that key by set-up, or sign with a known one"),
    "signer_expired": Code(
        "the key's time in `allowed_signers` is over", "extend it or add the new key by set-up, and sign with that"
    ),
    "clock_wrong": Code("the clock is before the key's time", "set the clock, then run it again"),
    "signers_missing": Code("there is no `allowed_signers` file to judge by", "write it by set-up, or name yours"),
    "invalid_signers": Code("`allowed_signers` cannot be read", "correct the line that the sentence names"),
    "signing_failed": Code(
        "the manifest could not be signed", "check `signing_key`; load it into ssh-agent when it has a passphrase"
    ),
    "downgrade": Code(
        "the release is older than the deployed one", "give `allow_downgrade` when going back is what you want"
    ),
    "too_old": Code(
        "the deployed release is too old for this one", "deploy a release in between first, as the sentence says"
    ),
    "disk_full": Code("there is not enough room on the disk", "free the space that the sentence names"),
    "destination_differs": Code(
        "the folder is there, and holds something else than the bundle", "remove that folder, or name another one"
    ),
    "source_invalid": Code("`bundle.yml` cannot be used", "correct the key that the sentence names"),
    "source_missing": Code("a file or folder that `bundle.yml` names is not there", "make it, or correct its path"),
    "engine_unavailable": Code("neither Docker nor Podman answers", "start the engine, or give the image as a `tar`"),
    "image_unknown": Code("the engine has no such image", "build or pull it, or correct its name in `bundle.yml`"),
    "image_invalid": Code("the image archive cannot be used", "save the image again"),
    "image_architecture": Code(
        "the image is for another processor than the Pis have", "build it for `linux/arm64` (or as `requires` says)"
    ),
    "requirement_unmet": Code("the Pi does not have what the release needs", "read what it needs, and update the Pi"),
    # firmware from release pages
    "release_unreachable": Code("the release page does not answer", "check the link, or name a mirror"),
    "release_refused": Code("the release page refuses", "wait, or give a token or a mirror"),
    "asset_missing": Code("the release has no file of that name", "correct the asset's name in the table"),
    "download_mismatch": Code("what was downloaded is not what was announced", "run it again; check the mirror"),
    # setting a Pi up
    "inventory_invalid": Code(
        "a variable of the inventory is missing or cannot work", "correct the variable that the sentence names"
    ),
    "os_unsupported": Code(
        "the host runs no 64-bit Raspberry Pi OS or Debian of version 12 or 13",
        "write 64-bit Raspberry Pi OS Lite to its SD card",
    ),
    "sudo_missing": Code(
        "the user that logs in may not become root", "give `ansible_become_password`, or the user's right to use sudo"
    ),
    "clock_implausible": Code(
        "the Pi's clock is wrong and no time server answers", "connect it to a network once, or set its clock"
    ),
    "packages_unavailable": Code(
        "packages are missing, and apt cannot bring them", "connect the Pi to the internet once, and repair its apt"
    ),
    "compose_missing": Code(
        "Docker's Compose v2 is not there, and the system's packages have none",
        "set `raspberry_pi_docker_repository`, or take Debian 13",
    ),
    "docker_config_invalid": Code(
        "Docker does not start with its settings, or they are no JSON object",
        "repair `/etc/docker/daemon.json`, or remove it",
    ),
    # the firewall and the CAN interface
    "firewall_reverted": Code(
        "no new SSH connection came through the new firewall, so the old one is back",
        "correct the firewall's variables; nothing else was changed",
    ),
    "firewall_invalid": Code("the firewall's rules cannot be loaded", "correct the variable that the sentence names"),
    "boot_config_invalid": Code(
        "the Pi's config.txt cannot be changed safely", "repair the line that the sentence names"
    ),
    "can_controller_absent": Code(
        "there is no CAN interface", "check the HAT, and that config.txt has its overlay; restart the Pi once"
    ),
    "can_controller_fault": Code(
        "the CAN controller does not enter its configuration mode",
        "check the HAT's seat and solder joints and the oscillator's value; it is a hardware fault",
    ),
    # certificates
    "ca_expired": Code(
        "the RV's own CA has expired",
        "run setup.yml with `tls_certificates_renew_ca` and install the new one on phones",
    ),
    "ca_key_missing": Code(
        "the CA's certificate is there, or was, and its key is not",
        "restore the key from a backup; a new CA is never made silently",
    ),
    "certificate_mismatch": Code("a certificate and a key do not belong to each other", "restore both from one backup"),
    "certificate_invalid": Code("a certificate or key cannot be read", "restore it from a backup"),
    # environment files
    "secret_missing": Code("a password that only people can choose is not given", "set the variable in the vault"),
    "secret_unsupported": Code(
        "a value cannot be written so that every reader gets the same", "choose another value, as the sentence says"
    ),
    "encryption_key_missing": Code(
        "ENCRYPTION_KEY is lost while the database holds data that it encrypts",
        "restore it from a backup; a new one would lose that data",
    ),
    "encryption_key_in_use": Code(
        "ENCRYPTION_KEY is to be replaced while data may be encrypted with it",
        "leave it out of `environment_files_replace`",
    ),
    "credential_secret_missing": Code(
        "NODE_RED_CREDENTIAL_SECRET is lost while Node-RED has credentials that it encrypts",
        "restore it from a backup, or remove the credentials as the sentence says",
    ),
    "secret_differs": Code(
        "a given secret is not the one on the Pi",
        "correct the vault, run rotate.yml, or name it in `environment_files_replace`",
    ),
    "secrets_disagree": Code(
        "the two environment files hold different values of one secret",
        "make them equal by hand, or give the right one and name it in `environment_files_replace`",
    ),
    # the bridge's service
    "service_failed": Code("a service does not start", "read its journal, which the sentence quotes"),
    # Wi-Fi credentials for the modules
    "wifi_invalid": Code("SSID or password cannot work", "correct it: 1 to 32 bytes, and 8 to 63 or none"),
    "wifi_absent": Code(
        "neither the inventory nor the database has Wi-Fi credentials",
        "set `wifi_credentials_ssid`, or use the web app",
    ),
    "decryption_failed": Code(
        "a value of the database cannot be decrypted", "check ENCRYPTION_KEY; enter the value again in the web app"
    ),
    # backups, and changing secrets
    "backup_damaged": Code("the backup is cut off or changed", "take another one"),
    "backup_locked": Code(
        "there is no vault password, or the backup does not open with it",
        "give the password that the backup was made with",
    ),
    "backup_foreign": Code(
        "the backup is of another RV", "name the right one, or allow it with `restore_foreign` for a replaced Pi"
    ),
    "backup_failed": Code("a part of the RV could not be saved", "read what the sentence names; no backup was written"),
    "rotation_unfinished": Code(
        "a secret was changed in some places and not in all", "run rotate.yml again: it goes on where it was"
    ),
    "map_invalid": Code("the file is no MBTiles map", "name the .mbtiles file"),
    "map_damaged": Code("the map did not reach the Pi as it was sent", "run it again"),
    # what a rollout finds out
    "module_disabled": Code("the module is disabled in the registry", "enable it there to have it updated"),
    "no_image": Code("there is no firmware for the module's type", "nothing, or add its image to `fleet_firmware_dir`"),
    "no_ota": Code("the module cannot be woken (`ota: none`)", "update it by cable"),
    "held_image": Code("this very image failed on the module before", "ship another image, or run with `force`"),
    "old_version_after_boot": Code(
        "the module came back with its old image", "read the module's log: the new image fails its own start test"
    ),
    "wrong_version_after_boot": Code(
        "the module reports neither the old nor the new version", "check which image the file really holds"
    ),
    "silent_after_boot": Code(
        "no version report came after the boot", "read the module's log by cable; raise `boot_timeout` if it is slow"
    ),
    "lost": Code(
        "the module does not answer any more, and its old image cannot be put back",
        "power-cycle it and run it again; else flash it by cable",
    ),
    "reverted": Code(
        "the module ran this image, and reports another version since", "ship another image, or run with `force`"
    ),
    "inhibited": Code("the inhibit file asks for no updates", "remove the file, or give `override` with a reason"),
    "precondition_failed": Code("a precondition is not met", "make it true, or give `override` with a reason"),
    "precondition_unknown": Code(
        "no fresh value for a precondition arrived", "check its topic or CAN id, or give `override` with a reason"
    ),
    "canary_failed": Code("a canary module failed, so the others were not started", "look at the canary's error first"),
    "too_many_failures": Code(
        "`max_failures` was reached, so no more modules were started", "look at the failures first, then run it again"
    ),
    # the run itself
    "locked": Code("another run holds the lock", "wait for it, or look at who holds it"),
    "interrupted": Code("the run ended before its time", "run it again: it goes on where it was"),
    "not_started": Code("the detached run did not come up", "read the log that the sentence shows, and run it again"),
    "stopped": Code("somebody ended the run", "run it again: it goes on where it was"),
    "state_unwritable": Code("the state directory cannot be written", "free space, or check its owner"),
    "internal": Code("a defect in this project", "report it with the journal that the sentence names"),
}


class FleetError(Exception):
    """One failure: a sentence for people, a code for programs, and the values behind both.

    :param code: a key of ``CODES``
    :param sentence: what was tried on which thing, what was seen, what to do next
    :param details: JSON-able values of the sentence, never a secret
    """

    def __init__(self, code: str, sentence: str, **details: object) -> None:
        if code not in CODES:
            raise ValueError(f"{code!r} is not in CODES")
        super().__init__(sentence)
        self.code = code
        self.details = details


class InputError(FleetError):
    """What we were given cannot be used; nothing was touched."""


class RefusedError(FleetError):
    """The peer answered, and the answer is no."""


class LinkError(FleetError):
    """The way to the peer failed; trying again may help."""


class UnknownOutcomeError(FleetError):
    """Everything was sent and the answer was lost."""
