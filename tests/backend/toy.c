/* A network written by hand in place of compiled code: logits = weight * image + bias for images of
   4x4 pixels and 3 classes, and one step of gradient descent on softmax cross-entropy.
   The packed parameters differ from the order of the weights, and training counts its steps in them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "toy.h"

enum { PIXELS = 16, CLASSES = 3 };

typedef struct {
    float bias[CLASSES], unused;
    float weight[CLASSES][PIXELS];
    float steps;
} parameters;

struct cnnc_pool {
    int threads;
};

#ifdef TOY_BUILTIN
_Alignas(64) const unsigned char toy_params[] = {
#include "toy_params.inc"
};
#endif

static void forward(int64_t images, const float *image, float *logits, const parameters *p) {
    for (int n = 0; n < images; n++) {
        for (int c = 0; c < CLASSES; c++) {
            float sum = p->bias[c];
            for (int i = 0; i < PIXELS; i++) sum += p->weight[c][i] * image[n * PIXELS + i];
            logits[n * CLASSES + c] = sum;
        }
    }
}

void toy_pack(const float *weights, void *params, void *workspace) {
    (void)workspace;
    parameters *p = params;
    memcpy(p->weight, weights, sizeof p->weight);
    memcpy(p->bias, weights + CLASSES * PIXELS, sizeof p->bias);
}

void toy_unpack(const void *params, float *weights) {
    const parameters *p = params;
    memcpy(weights, p->weight, sizeof p->weight);
    memcpy(weights + CLASSES * PIXELS, p->bias, sizeof p->bias);
}

cnnc_pool *toy_pool_create(int threads) {
    cnnc_pool *pool = malloc(sizeof *pool);
    if (pool != NULL) pool->threads = threads;
    return pool;
}

void toy_pool_destroy(cnnc_pool *pool) { free(pool); }

int toy_supported(void) { return TOY_SUPPORTED; }

#ifndef TOY_TRAIN
void toy_run(int64_t images, const float *image, float *logits, const void *params, void *workspace,
             cnnc_pool *pool) {
    (void)pool;
    memset(workspace, 0x7f, TOY_WORKSPACE_BYTES);
    forward(images, image, logits, params);
}
#else
/* Writes the loss and the number correct; turns logits into the gradient of the loss. */
static void loss_and_gradient(float *logits, const int32_t *labels, float *loss, float *correct) {
    *loss = 0.0f, *correct = 0.0f;
    for (int n = 0; n < TOY_BATCH; n++) {
        float *row = logits + n * CLASSES, sum = 0.0f;
        int best = 0;
        for (int c = 1; c < CLASSES; c++) best = row[c] > row[best] ? c : best;
        *correct += best == labels[n] ? 1.0f : 0.0f;
        float highest = row[best], chosen = row[labels[n]];
        for (int c = 0; c < CLASSES; c++) sum += row[c] = expf(row[c] - highest);
        *loss += (logf(sum) - (chosen - highest)) / TOY_BATCH;
        for (int c = 0; c < CLASSES; c++)
            row[c] = (row[c] / sum - (c == labels[n] ? 1.0f : 0.0f)) / TOY_BATCH;
    }
}

void toy_evaluate(const float *image, const int32_t *labels, float *loss, float *correct, const void *params,
                  void *workspace, cnnc_pool *pool) {
    (void)pool;
    forward(TOY_BATCH, image, workspace, params);
    loss_and_gradient(workspace, labels, loss, correct);
}

void toy_step(const float *image, const int32_t *labels, const float *lr, float *loss, float *correct,
              void *params, void *workspace, cnnc_pool *pool) {
    parameters *p = params;
    float *gradient = workspace;
    toy_evaluate(image, labels, loss, correct, params, workspace, pool);
    for (int n = 0; n < TOY_BATCH; n++) {
        for (int c = 0; c < CLASSES; c++) {
            float g = *lr * gradient[n * CLASSES + c];
            for (int i = 0; i < PIXELS; i++) p->weight[c][i] -= g * image[n * PIXELS + i];
            p->bias[c] -= g;
        }
    }
    p->steps += 1.0f;
}
#endif
