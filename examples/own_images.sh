#!/usr/bin/env bash
# Your own images: FOLDER holds train/<class>/*.jpg and test/<class>/*.jpg, any number of classes,
# any size; they are resized to 32 x 32 once.
#
#   examples/own_images.sh FOLDER
set -euo pipefail
folder=${1:?usage: own_images.sh FOLDER}

# Look first: are the labels right, does an augmentation destroy what matters?
cifar-resnet preview-augs --data "$folder" --out own-images/preview

# A narrow network and the tensor form are quick; a tenth of the training images validates, so
# that test/ stays untouched until the end.
cifar-resnet train --data "$folder" --recipe baseline-fast --set model.width=16 \
  --epochs 10 --batch-size 64 --max-lr auto --div-factor 20 --val-fraction 0.1 \
  --run-dir own-images/run

cifar-resnet evaluate own-images/run --split test
cifar-resnet misclassified own-images/run --split test --n 20
