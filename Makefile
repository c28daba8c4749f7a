# make demo: sets up and shows it working. make test: sets up and passes all tests.
# make test-ha: beside a real Home Assistant, installed outside of this folder (about 700 MB).
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

# The last release that runs on Python 3.11, and one that knows device-based discovery (Python 3.13).
# What they need beside what pip takes to be needed is what `hass` would install when it starts.
HA := /tmp/ha
HA_OLD := homeassistant==2024.3.3 home-assistant-frontend==20240307.0 paho-mqtt==1.6.1 janus==1.0.0 \
	fnv-hash-fast==0.5.0 'josepy<2' pillow psutil-home-assistant securetar numpy sqlalchemy
HA_NEW := homeassistant==2025.4.4 home-assistant-frontend==20250411.0 paho-mqtt==2.1.0 \
	fnv-hash-fast==1.4.0 'josepy<2' pillow psutil-home-assistant securetar numpy sqlalchemy
PYTHON_OLD ?= python3.11
PYTHON_NEW ?= python3.13

.PHONY: setup packages demo test check test-ha test-ha-device

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

packages:
	scripts/system-packages

demo: setup
	$(VENV)/bin/mmstream demo

test: packages setup
	scripts/test

check: setup
	scripts/check

test-ha: packages setup $(HA)/venv/bin/hass
	MMSTREAM_HOME_ASSISTANT=$(HA)/venv/bin/hass scripts/test tests/ha

test-ha-device: packages setup $(HA)/venv313/bin/hass
	MMSTREAM_HOME_ASSISTANT=$(HA)/venv313/bin/hass scripts/test tests/ha

$(HA)/venv/bin/hass:
	$(PYTHON_OLD) -m venv $(HA)/venv
	$(HA)/venv/bin/pip install -q $(HA_OLD)

$(HA)/venv313/bin/hass:
	$(PYTHON_NEW) -m venv $(HA)/venv313
	$(HA)/venv313/bin/pip install -q $(HA_NEW)
