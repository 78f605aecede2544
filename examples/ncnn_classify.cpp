// Classify one picture with the files that `asymmnet export ncnn` writes.
//
//   ncnn_classify NET.ncnn.param NET.ncnn.bin PICTURE.ppm [MEAN_R MEAN_G MEAN_B STD_R STD_G STD_B]
//
// The picture is a binary PPM of the card's input_size: the shorter side resized to
// input_size / crop_ratio, bilinear, then the centre cropped.  Mean and deviation are the card's
// rgb_mean and rgb_std; ImageNet's by default.  Prints a line per class: number, logit, probability.
//
// c++ -std=c++11 -O2 -fopenmp -I$NCNN/include/ncnn ncnn_classify.cpp -L$NCNN/lib -lncnn -o ncnn_classify

#include <net.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

static int fail(const char* what, const char* file) {
    std::fprintf(stderr, "%s: %s\n", file, what);
    return 1;
}

int main(int argc, char** argv) {
    if (argc != 4 && argc != 10)
        return fail("expected NET.param NET.bin PICTURE.ppm, and mean and deviation or none", argv[0]);

    std::FILE* file = std::fopen(argv[3], "rb");
    int width = 0, height = 0;
    if (!file || std::fscanf(file, "P6 %d %d 255", &width, &height) != 2 || width < 1 || height < 1)
        return fail("not a binary PPM of 8 bits", argv[3]);
    std::fgetc(file);  // the one blank behind the header
    std::vector<unsigned char> pixels(static_cast<size_t>(width) * height * 3);
    if (std::fread(pixels.data(), 1, pixels.size(), file) != pixels.size())
        return fail("cut off", argv[3]);
    std::fclose(file);

    float mean[3] = {123.68f, 116.779f, 103.939f}, scale[3] = {1 / 58.393f, 1 / 57.12f, 1 / 57.375f};
    for (int c = 0; c < 3 && argc == 10; c++) {
        mean[c] = std::strtof(argv[4 + c], nullptr);
        scale[c] = 1 / std::strtof(argv[7 + c], nullptr);
    }

    ncnn::Net net;
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;
    if (net.load_param(argv[1])) return fail("no network", argv[1]);
    if (net.load_model(argv[2])) return fail("no weights of this network", argv[2]);

    ncnn::Mat input = ncnn::Mat::from_pixels(pixels.data(), ncnn::Mat::PIXEL_RGB, width, height);
    input.substract_mean_normalize(mean, scale);
    ncnn::Extractor extractor = net.create_extractor();
    ncnn::Mat logits;
    if (extractor.input("in0", input) || extractor.extract("out0", logits))
        return fail("the network does not run", argv[1]);

    const float* values = logits;
    float highest = *std::max_element(values, values + logits.w), sum = 0;
    for (int i = 0; i < logits.w; i++) sum += std::exp(values[i] - highest);
    for (int i = 0; i < logits.w; i++)
        std::printf("%d %.9g %.6f\n", i, values[i], std::exp(values[i] - highest) / sum);
    return 0;
}
