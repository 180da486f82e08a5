#!/usr/bin/env bash
# Your own images: FOLDER holds train/<class>/ and test/<class>/ folders of images of any size, and
# any number of classes. (Folders <class>/ alone will do; then leave out --split test.)
#
#   examples/own_images.sh FOLDER
set -euo pipefail
folder=${1:?usage: own_images.sh FOLDER}

# Look first: are the labels right, does an augmentation destroy what matters?
cifar-resnet preview-augs --data "$folder" --out own-images/preview

# The recipe `own` fits itself to the images. A tenth of the training images validates, so that
# test/ stays untouched until the end.
cifar-resnet train --data "$folder" --val-fraction 0.1 --run-dir own-images/run

cifar-resnet evaluate own-images/run --split test
cifar-resnet misclassified own-images/run --split test --n 20
