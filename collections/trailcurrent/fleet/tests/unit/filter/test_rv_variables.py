"""What an RV is told of the inventory."""

from __future__ import annotations

from ansible_collections.trailcurrent.fleet.plugins.filter.rv_variables import FilterModule

rv_variables = FilterModule().filters()["rv_variables"]


def test_variables_of_roles_are_told_and_others_are_not() -> None:
    told = rv_variables({"mcu_firmware_parallel": 2, "ansible_user": "pi", "vault_x": "y", "mcu_firmware_typo": 1})
    assert told == {"mcu_firmware_parallel": 2}


def test_secrets_stay_on_the_laptop_also_inside_of_dictionaries() -> None:
    modules = {"esp32-8F56D8": {"address": "192.168.8.41", "password": "hidden"}, "list": [{"token": "hidden", "a": 1}]}
    told = rv_variables({"mcu_firmware_mqtt_password": "hidden", "mcu_firmware_modules": modules})
    assert "hidden" not in str(told)
    assert told["mcu_firmware_modules"]["esp32-8F56D8"] == {"address": "192.168.8.41"}


def test_half_of_what_works_only_with_a_secret_is_not_told() -> None:
    """With them and without the password, a play on the RV itself would be refused."""
    given = {"wifi_credentials_ssid": "Camp", "wifi_credentials_password": "hidden", "wifi_credentials_attempts": 3}
    told = rv_variables({**given, "environment_files_replace": ["MQTT_PASSWORD"], "environment_files_old_readers": "x"})
    assert told == {"environment_files_old_readers": "x", "wifi_credentials_attempts": 3}


def test_places_on_the_rv_are_told() -> None:
    places = {"fleet_etc": "/etc/x", "fleet_state_dir": "/srv/tc", "fleet_user": "pi", "fleet_home": "/home/pi"}
    assert rv_variables(places) == places


def test_paths_of_the_laptop_are_not_told() -> None:
    laptop = {"python_runtime_wheelhouse": "~/wheels", "fleet_bundle": "x.zip", "rv_settings_allowed_signers": "y"}
    assert rv_variables({**laptop, "fleet_hostname": "trailcurrent01"}) == {"fleet_hostname": "trailcurrent01"}


def test_what_somebody_asked_for_once_is_not_done_again_by_the_rv() -> None:
    asked = {"tls_certificates_replace_ca": True, "tls_certificates_renew_ca": True, "raspberry_pi_reboot": True}
    assert rv_variables({**asked, "can_interface_reboot": True, "mcu_firmware_force": True}) == {}
