#!/usr/bin/env bash
# ERA V1, session 10, step by step: the network, the augmentations, the LR range test, 24 epochs
# with its settings, and every picture that its report shows.
#
# Downloads CIFAR-10 (170 MB) unless CIFAR_RESNET_DATA names it. Hours on a CPU, minutes on a GPU.
# With CIFAR_RESNET_DATA=shapes, CIFAR_RESNET_MODEL__WIDTH=8 and the like, all of it can be tried
# in a minute.
set -euo pipefail

cifar-resnet summary
cifar-resnet preview-augs --out course-project/preview
cifar-resnet find-lr --end-lr 10 --out course-project/lr_range
cifar-resnet train --max-lr 0.0465 --div-factor 2000 --run-dir course-project/run
cifar-resnet evaluate course-project/run
cifar-resnet misclassified course-project/run --n 10
cifar-resnet plot course-project/run
