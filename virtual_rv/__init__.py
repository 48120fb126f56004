"""A virtual RV: emulated ESP32 modules on an emulated CAN bus, with a broker, a database and the real CAN bridge.

From a shell, everything at once (`up` returns when all of it answers; DIR/rv.json then tells where it is)::

    python -m virtual_rv up --directory DIR --modules 8
    python -m virtual_rv firmware --directory DIR/firmware --version 1.1.0
    python -m virtual_rv status --directory DIR
    python -m virtual_rv down --directory DIR

From a test, one module alone::

    settings = ModuleSettings("esp32-8f56d8", "gnss_module", address="127.22.0.11", image=make_image(version="1.0.0"))
    async with EmulatedModule(settings, faults=Faults(boots="old", for_version="1.1.0")) as module:
        module.enter_ota()                         # what the trigger on the CAN bus does
        ...                                        # upload to 127.22.0.11:3232
        await module.until(lambda: module.uploads == 1)
        assert module.version == "1.0.0"           # it rejected the new image by its own self test

It runs on Linux: every module has an address of its own in 127.0.0.0/8.
"""
