# Sets FoldScan up, tests it and shows it at work:  make help

# The study that `make demo` shows, and what each study's demo needs to be quick on a CPU:
# options of lib.phantoms, of 1-DataPreparation.py, of 2b-TrainingKFolds.py and of 4-InferenceTest.py. A study with a
# DEMO_PATIENTS_ line has a demo.
STUDY = flair_visibility
DEMO_PATIENTS_flair_visibility = --patients 40 --seed 0
DEMO_PREPARE_flair_visibility  = -k 3 --set 'data.size=[96,96]'
DEMO_TRAIN_flair_visibility    = -j 3 --epochs 12 --batch-size 4 --tracker none --set 'network={name: unet, width: 16}' \
	--set window.frames=3 --set training.sampler=balanced --set training.select=dice/stroke --set training.patience=0

DEMO_PATIENTS_nuchal_translucency = --patients 120 --seed 0
DEMO_PREPARE_nuchal_translucency  = -k 3 --set 'data.size=[128,160]'
DEMO_TRAIN_nuchal_translucency    = -j 3 --epochs 40 --batch-size 4 -lr 3e-3 --tracker none --set 'network={name: unet, width: 16}' \
	--set training.patience=0
DEMO_PATIENTS_lumbar_spine = --patients 30 --seed 0
DEMO_PREPARE_lumbar_spine  = -k 3 --set 'data.size=[128,160]' --set data.reader.pixels_per_mm=4
DEMO_TRAIN_lumbar_spine    = -j 3 --epochs 16 --batch-size 4 -lr 3e-3 --tracker none --set 'network={name: unet, width: 16}' \
	--set training.patience=0
DEMO_TEST_lumbar_spine     = --tolerance 1

DEMO_PATIENTS_fetal_anatomy = --patients 200 --seed 0
DEMO_PREPARE_fetal_anatomy  = -k 3 --set 'data.size=[160,208]'
DEMO_TRAIN_fetal_anatomy    = -j 3 --epochs 20 --batch-size 8 --tracker none

DEMO_PATIENTS_fetal_biometry = --patients 168 --seed 0
DEMO_PREPARE_fetal_biometry  = -k 3 --set 'data.size=[72,96]' --set 'data.reader.patient_pattern=^(Patient\d+)_'
DEMO_TRAIN_fetal_biometry    = -j 3 --epochs 40 --batch-size 16 --tracker none --set training.patience=0

DEMO_PATIENTS_fetal_biometry_landmarks = --patients 90 --seed 0
DEMO_PREPARE_fetal_biometry_landmarks  = -k 3 --set 'data.size=[96,128]' --set 'data.reader.patient_pattern=^(Patient\d+)_' \
	--set 'data.reader.spacing_table={file: pixel_size.csv, name_column: image, spacing_column: pixel_size_mm}'
DEMO_TRAIN_fetal_biometry_landmarks    = -j 3 --epochs 20 --batch-size 4 -lr 3e-3 --tracker none \
	--set 'network={name: unet, width: 16}' --set training.patience=0

DEMO_PATIENTS_echo_quality = --patients 60 --seed 0
DEMO_PREPARE_echo_quality  = -k 3 --set 'data.size=[40,40]'
DEMO_TRAIN_echo_quality    = -j 3 --epochs 12 --batch-size 8 -lr 2e-3 --tracker none --set training.schedule=one_cycle \
	--set 'window={frames: 4, stride: 6, test_windows: 2}' --set training.select=loss --set task.label_smoothing=0.1

# make env PYTHON=/path/to/python uses that one; otherwise the first of these that runs and is new enough.
PYTHON =
PYTHONS = python3.12 python3.11 python3.13 python3.14 python3
# What opencv-python loads and does not bring: libGL.so.1; libglib-2.0.so.0 and libgthread-2.0.so.0.
DEBIAN_PACKAGES = libgl1 libglib2.0-0
TEST_PINS = pytest==9.2.0 iniconfig==2.3.1 pluggy==1.7.0 pygments==2.21.0 pycocotools==2.0.11 \
	pytest-xdist==3.8.0 execnet==2.1.2 \
	selenium==4.51.0 attrs==26.1.0 outcome==1.3.0.post0 pysocks==1.7.1 sortedcontainers==2.4.0 trio==0.35.0 \
	trio-websocket==0.12.2 websocket-client==1.9.2 wsproto==1.3.2
# Two files of tests at once, each with one thread: more threads than cores would wait for each other.
RUN_TESTS = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
TESTS = tests
# Every package of requirements.txt's first section, by the name that the code imports.
IMPORTS = cc3d cv2 jinja2 matplotlib.pyplot mlflow nibabel numpy onnx onnxruntime onnxscript openjpeg openpyxl pandas \
	PIL.Image pydicom pylibjpeg scipy.ndimage segmentation_models_pytorch sklearn tensorboard torch torchvision tqdm wandb yaml
# mlflow counts its uses, even its import, unless it is told not to.
export MLFLOW_DISABLE_TELEMETRY = true

VENV = .venv
PIP_INSTALL = $(VENV)/bin/python -m pip install --disable-pip-version-check -q
# A stamp holds what it vouches for, so that a changed pin is seen whatever the file times say.
INSTALLED = $(VENV)/requirements.installed
CHECKED = $(VENV)/imports.checked
TESTABLE = $(VENV)/pytest.installed

DEMO = demo/$(STUDY)
DEMO_STUDIES = $(sort $(patsubst DEMO_PATIENTS_%,%,$(filter DEMO_PATIENTS_%,$(.VARIABLES))))
SCRIPT_ARGUMENTS = -s $(STUDY) -o $(DEMO)/workspace

define CHECK_IMPORTS
import importlib, sys
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:
        sys.exit(f"make env: {name.split('.')[0]} does not import: {error}\n"
                 "If a shared library (.so) is missing, on Debian or Ubuntu:\n"
                 f"    sudo apt-get install {sys.argv[1]}\n"
                 "then run make env again. If the package itself is broken: make clean env")
endef
export CHECK_IMPORTS

.PHONY: help env test demo known-study clean
.NOTPARALLEL:

help:
	@echo "make env    make $(VENV) from requirements.txt (PYTHON=... chooses the Python, 3.11 or newer)"
	@echo "make test   the same with pytest, then the tests (TESTS=tests/test_metrics.py for some of them)"
	@echo "make demo   scripts 1, 2b, 3 and 4 on example data, kept in demo/ (STUDY=...: $(DEMO_STUDIES))"
	@echo "make clean  remove $(VENV) and demo/"
	@echo "make help   this list"

# The first stamp is written last and a .venv without it is made anew: a half-made one never passes for whole.
env:
	@if ! { cmp -s requirements.txt $(INSTALLED) && $(VENV)/bin/python -c ''; } 2>/dev/null; then \
		set -e; python=; \
		for candidate in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
			if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
				python=$$candidate; break; \
			fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "make env: no Python 3.11 or newer (tried: $(or $(PYTHON),$(PYTHONS)));" \
				"install one, or name it: make env PYTHON=/path/to/python3.12" >&2; exit 2; \
		fi; \
		if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
			echo "make env: $$python can't make virtual environments;" \
				"on Debian or Ubuntu: sudo apt-get install python3-venv" \
				"(for a Python beside the system's: python3.12-venv and the like)" >&2; exit 2; \
		fi; \
		echo "making $(VENV) with $$("$$python" --version):" \
			"3.4 GB to fetch on Linux, 7.1 GB on disk, some minutes"; \
		rm -rf $(VENV); "$$python" -m venv $(VENV); \
		$(PIP_INSTALL) -r requirements.txt; \
		cp requirements.txt $(INSTALLED).partial; mv $(INSTALLED).partial $(INSTALLED); \
	fi
	@[ -f $(CHECKED) ] || { \
		$(VENV)/bin/python -c "$$CHECK_IMPORTS" "$(DEBIAN_PACKAGES)" $(IMPORTS) && touch $(CHECKED); }

test: env
	@[ "$$(cat $(TESTABLE) 2>/dev/null)" = "$(TEST_PINS)" ] || \
		{ $(PIP_INSTALL) $(TEST_PINS) && echo "$(TEST_PINS)" > $(TESTABLE); }
	$(RUN_TESTS) $(TESTS)

# Prerequisites run from left to right: a wrong name should not cost the minutes that env takes.
demo: known-study env
	rm -rf $(DEMO)/input_data
	$(VENV)/bin/python -m lib.phantoms $(STUDY) $(DEMO)/input_data $(DEMO_PATIENTS_$(STUDY))
	$(VENV)/bin/python 1-DataPreparation.py $(SCRIPT_ARGUMENTS) -i $(DEMO)/input_data $(DEMO_PREPARE_$(STUDY))
	$(VENV)/bin/python 2b-TrainingKFolds.py $(SCRIPT_ARGUMENTS) $(DEMO_TRAIN_$(STUDY))
	$(VENV)/bin/python 3-ConvertModels.py $(SCRIPT_ARGUMENTS)
	$(VENV)/bin/python 4-InferenceTest.py $(SCRIPT_ARGUMENTS) $(DEMO_TEST_$(STUDY))
	@echo "demo: data in $(DEMO)/input_data"; for page in $(DEMO)/workspace/results/*/report.html; do echo "report: $$page"; done

known-study:
	@[ -n "$(and $(filter 1,$(words $(STUDY))),$(filter $(DEMO_STUDIES),$(STUDY)))" ] || \
		{ echo "make demo: no demo of STUDY='$(STUDY)'; there are: $(DEMO_STUDIES)" >&2; exit 2; }

clean:
	rm -rf $(VENV) demo
