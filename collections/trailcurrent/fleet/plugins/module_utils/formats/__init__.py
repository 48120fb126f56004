"""Bytes and text <-> objects: no sockets, no files, no Ansible."""
