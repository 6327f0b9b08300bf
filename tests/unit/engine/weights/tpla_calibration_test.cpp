#include "engine/weights/tpla_calibration.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/text.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/safetensors.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

/// Two layers of 16 latent columns, two heads of 3.
ModelConfig config_of() {
  ModelConfig config;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.kv_lora_rank = 16;
  config.qk_nope_head_dim = 3;
  return config;
}

std::vector<float> identity() {
  std::vector<float> matrix(256, 0.0F);
  for (size_t i = 0; i < 16; ++i) {
    matrix[17 * i] = 1.0F;
  }
  return matrix;
}

/// Layer 0 is folded and plain; layer 1 has an inverse, shared columns and fitted keys.
TplaCalibration calibration_of() {
  TplaCalibration calibration;
  calibration.basis = "balanced";
  calibration.dealing = "random mix";
  calibration.num_slices = 2;
  calibration.report = R"({"text":"a \"b\"","quality":{"kl":0.25}})";
  calibration.layers.resize(2);
  calibration.layers[0].basis = identity();
  calibration.layers[0].logit_factor = 0.1;
  calibration.layers[0].harm = -1.0 / 3.0;
  TplaCalibration::Layer& layer = calibration.layers[1];
  layer.basis = identity();
  layer.basis[16 * 2 + 5] = 3.0F;
  layer.inverse = identity();
  layer.inverse[16 * 2 + 5] = -3.0F;
  layer.num_shared = 8;
  layer.logit_factor = 2.0;
  for (int i = 0; i < 2 * 2 * 12 * 3; ++i) {
    layer.keys.push_back(0.5F * static_cast<float>(i));
  }
  return calibration;
}

class TplaCalibrationTest : public ::testing::Test {
 protected:
  [[nodiscard]] Status write(const TplaCalibration& calibration) const {
    return write_tpla_calibration(path_, config_, calibration);
  }
  /// What writing the changed calibration reports.
  [[nodiscard]] std::string fault_of(const std::function<void(TplaCalibration&)>& change) const {
    TplaCalibration calibration = calibration_of();
    change(calibration);
    const Status status = write(calibration);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_FALSE(std::filesystem::exists(path_));
    return status.message();
  }
  /// A file of metadata and tensors of the test's choice.
  [[nodiscard]] Status read(const std::string& metadata,
                            const std::vector<test::TensorFileEntry>& tensors) const {
    std::string bytes = test::safetensors_bytes(tensors);
    const std::string plain = R"("format":"pt")";
    const size_t at = bytes.find(plain);
    const std::string header_and_data = bytes.substr(8);
    const size_t header_size = static_cast<size_t>(static_cast<unsigned char>(bytes[0])) +
                               256U * static_cast<unsigned char>(bytes[1]);
    std::string header = header_and_data.substr(0, header_size);
    header.replace(at - 8, plain.size(), metadata);
    folder_.write("other", test::safetensors_bytes(header, header_and_data.substr(header_size)));
    return read_tpla_calibration(folder_.file("other"), config_).status();
  }
  [[nodiscard]] std::string metadata(const std::string& shared, const std::string& alpha) const {
    return str_cat(R"("format":"tessera-tpla-calibration-1","model_fingerprint":")",
                   model_fingerprint(config_),
                   R"(","basis":"pca","dealing":"fold","slices":"2","shared":")",
                   shared,
                   R"(","alpha":")",
                   alpha,
                   "\"");
  }
  static test::TensorFileEntry tensor(const std::string& name,
                                      const std::vector<int64_t>& shape,
                                      const std::vector<float>& values) {
    return {name, "F32", shape, test::bytes_of(values)};
  }

  const ModelConfig config_ = config_of();
  const test::TempFolder folder_;
  const std::string path_ = folder_.file("calibration.safetensors");
};

TEST_F(TplaCalibrationTest, ReadsWhatWasWritten) {
  const TplaCalibration written = calibration_of();
  ASSERT_TRUE(write(written).is_ok());
  const auto read = read_tpla_calibration(path_, config_);
  ASSERT_TRUE(read.is_ok()) << read.status().to_string();
  const TplaCalibration& calibration = read.value();
  EXPECT_EQ(calibration.basis, written.basis);
  EXPECT_EQ(calibration.dealing, written.dealing);
  EXPECT_EQ(calibration.num_slices, written.num_slices);
  EXPECT_EQ(calibration.report, written.report);
  ASSERT_EQ(calibration.layers.size(), written.layers.size());
  for (size_t i = 0; i < written.layers.size(); ++i) {
    EXPECT_EQ(calibration.layers[i].basis, written.layers[i].basis);
    EXPECT_EQ(calibration.layers[i].inverse, written.layers[i].inverse);
    EXPECT_EQ(calibration.layers[i].keys, written.layers[i].keys);
    EXPECT_EQ(calibration.layers[i].num_shared, written.layers[i].num_shared);
    EXPECT_EQ(calibration.layers[i].logit_factor, written.layers[i].logit_factor);
    EXPECT_EQ(calibration.layers[i].harm, written.layers[i].harm);
  }
}

TEST_F(TplaCalibrationTest, AWindowIsKeptAndNoneIsNoKey) {
  TplaCalibration calibration = calibration_of();
  ASSERT_TRUE(write(calibration).is_ok());
  EXPECT_TRUE(read_tpla_calibration(path_, config_).value().window.is_empty());
  EXPECT_EQ(SafetensorsFile::open(path_).value().metadata().count("window"), 0U);
  calibration.window = {.num_first = 4, .num_last = 16};
  ASSERT_TRUE(write(calibration).is_ok());
  EXPECT_EQ(read_tpla_calibration(path_, config_).value().window, calibration.window);
}

TEST_F(TplaCalibrationTest, ReportsAWindowThatCannotBe) {
  EXPECT_THAT(fault_of([](TplaCalibration& calibration) { calibration.window.num_last = -1; }),
              HasSubstr("the exact window is of 0+-1 tokens (first and last), expected 0 to"));
  for (const char* window : {"", "16", "1,2,3", "4,x", "-1,4", "0,1000000"}) {
    const Status status = read(str_cat(metadata("0,0", "2,2"), R"(,"window":")", window, '"'),
                               {tensor("layers.0.basis", {16, 16}, identity()),
                                tensor("layers.1.basis", {16, 16}, identity())});
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << window;
    EXPECT_THAT(status.message(), HasSubstr("window")) << window;
  }
}

TEST_F(TplaCalibrationTest, LeavesNothingBehindButTheFile) {
  ASSERT_TRUE(write(calibration_of()).is_ok());
  ASSERT_TRUE(write(calibration_of()).is_ok()) << "over an older one";
  const std::filesystem::directory_iterator files(folder_.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(TplaCalibrationTest, SaysWhyItCannotWrite) {
  const std::string path = folder_.file("no such folder/calibration");
  const Status status = write_tpla_calibration(path, config_, calibration_of());
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr(path + ": No such file or directory"));
}

TEST_F(TplaCalibrationTest, ReportsMissingFiles) {
  EXPECT_EQ(read_tpla_calibration(path_, config_).status().code(), StatusCode::kNotFound);
}

TEST_F(TplaCalibrationTest, RefusesAnotherModelsFile) {
  ASSERT_TRUE(write(calibration_of()).is_ok());
  ModelConfig other = config_;
  other.rope_theta = 7.0;
  const Status status = read_tpla_calibration(path_, other).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr(path_));
  EXPECT_THAT(status.message(),
              HasSubstr(str_cat("model_fingerprint is \"",
                                model_fingerprint(config_),
                                "\", expected \"",
                                model_fingerprint(other),
                                "\"")));
}

TEST_F(TplaCalibrationTest, RefusesInversesThatAreNone) {
  EXPECT_THAT(fault_of([](auto& c) { c.layers[1].inverse[37] = 2.9F; }),
              HasSubstr("layers.1.inverse: is not the basis's: A A^-1 differs from the identity"));
  EXPECT_THAT(fault_of([](auto& c) { c.layers[1].inverse.clear(); }),
              HasSubstr("layers.1.basis: is not orthogonal and has no inverse"));
  EXPECT_THAT(fault_of([](auto& c) { c.layers[0].basis[3] = NAN; }),
              HasSubstr("layers.0.basis: is not orthogonal"));
  EXPECT_THAT(fault_of([](auto& c) { c.layers[1].basis[3] = INFINITY; }),
              HasSubstr("layers.1.inverse: is not the basis's"));
}

TEST_F(TplaCalibrationTest, RefusesSizesThatContradictEachOther) {
  const std::string text = fault_of([](auto& c) {
    c.layers[0].basis.pop_back();
    c.layers[1].inverse.push_back(0.0F);
    c.layers[1].keys.pop_back();
  });
  EXPECT_THAT(text, HasSubstr("layers.0.basis: has 255 elements, expected 256"));
  EXPECT_THAT(text, HasSubstr("layers.1.inverse: has 257 elements, expected 256"));
  EXPECT_THAT(text, HasSubstr("layers.1.keys: has 143 elements, expected 144"));
  EXPECT_THAT(fault_of([](auto& c) { c.layers.pop_back(); }),
              HasSubstr("shared columns of 1 layers, expected num_hidden_layers 2"));
}

TEST_F(TplaCalibrationTest, RefusesKeysThatNoSliceWouldUse) {
  EXPECT_THAT(fault_of([](auto& c) { c.layers[1].num_shared = 16; }),
              HasSubstr("layers.1.keys: are given, but all 16 columns are shared"));
  EXPECT_THAT(fault_of([](auto& c) { c.layers[1].keys[3] = NAN; }),
              HasSubstr("layers.1.keys: has values that are not finite"));
}

TEST_F(TplaCalibrationTest, RefusesImpossibleNumbers) {
  const std::string text = fault_of([](auto& c) {
    c.layers[0].logit_factor = 0.0;
    c.layers[1].logit_factor = INFINITY;
    c.layers[1].harm = NAN;
  });
  EXPECT_THAT(text, HasSubstr("alpha of layer 0 is 0, expected above 0"));
  EXPECT_THAT(text, HasSubstr("alpha of layer 1 is inf"));
  EXPECT_THAT(text, HasSubstr("harm of layer 1 is nan"));
  const std::string header = fault_of([](auto& c) {
    c.basis = "";
    c.dealing = "a\nb";
    c.num_slices = 3;
    c.layers[0].num_shared = 4;
    c.report = "[";
  });
  EXPECT_THAT(header, HasSubstr("basis is \"\", expected 1 to 64 letters"));
  EXPECT_THAT(header, HasSubstr("dealing is"));
  EXPECT_THAT(header, HasSubstr("kv_lora_rank 16 is not divisible by num_slices 3"));
  EXPECT_THAT(header, HasSubstr("layer 0: 4 shared columns are not a multiple of 12"));
  EXPECT_THAT(header, HasSubstr("report: "));
  EXPECT_THAT(fault_of([](auto& c) { c.num_slices = 1; }),
              HasSubstr("slices is 1, expected 2 or more"));
}

TEST_F(TplaCalibrationTest, ReportsEveryFaultOfTheMetadata) {
  const Status status = read(
      R"("format":"other","model_fingerprint":"abc","slices":"two","shared":"0","alpha":"1,,2","harm":"x,1")",
      {});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  const std::string& text = status.message();
  EXPECT_THAT(text, HasSubstr("format is \"other\", expected \"tessera-tpla-calibration-1\""));
  EXPECT_THAT(text, HasSubstr("model_fingerprint is \"abc\""));
  EXPECT_THAT(text, HasSubstr("slices is \"two\", expected 1 whole number"));
  EXPECT_THAT(text, HasSubstr("shared is \"0\", expected 2 whole numbers, one a layer"));
  EXPECT_THAT(text, HasSubstr("alpha is \"1,,2\", expected 2 numbers, one a layer"));
  EXPECT_THAT(text, HasSubstr("harm is \"x,1\", expected 2 numbers, one a layer"));
}

TEST_F(TplaCalibrationTest, RefusesListsThatAreNone) {
  for (const char* alpha : {"", "2", "2,2,2", "2,0", "2,-1", "2,inf", "2,nan", "2,x", "2,2,"}) {
    const Status status = read(metadata("0,0", alpha),
                               {tensor("layers.0.basis", {16, 16}, identity()),
                                tensor("layers.1.basis", {16, 16}, identity())});
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << alpha;
    EXPECT_THAT(status.message(), HasSubstr("alpha")) << alpha;
  }
  for (const char* shared : {"0", "0,0.5", "0,4", "0,-8", "0,24"}) {
    EXPECT_THAT(read(metadata(shared, "2,2"), {}).message(), HasSubstr("shared")) << shared;
  }
}

TEST_F(TplaCalibrationTest, ReportsWrongTensorsAndStrangers) {
  const Status status = read(metadata("0,8", "2,2"),
                             {tensor("layers.0.inverse", {2, 128}, identity()),
                              tensor("layers.1.basis", {16, 16}, std::vector<float>(256, 0.5F)),
                              tensor("layers.1.keys", {2, 2, 8, 3}, std::vector<float>(96, 0.5F)),
                              tensor("layers.2.basis", {16, 16}, identity())});
  const std::string& text = status.message();
  EXPECT_THAT(text, HasSubstr("layers.0.basis: missing, expected shape [16, 16]"));
  EXPECT_THAT(text, HasSubstr("layers.0.inverse: is float32[2, 128], expected float32[16, 16]"));
  EXPECT_THAT(text, HasSubstr("layers.1.keys: is float32[2, 2, 8, 3], expected float32[2, 2, 12"));
  EXPECT_THAT(text, HasSubstr("layers.2.basis: unexpected"));
}

TEST_F(TplaCalibrationTest, AFileOfAnOrthogonalBasisNeedsNoMore) {
  const Status status = read(metadata("0,16", "2,1.5"),
                             {tensor("layers.0.basis", {16, 16}, identity()),
                              tensor("layers.1.basis", {16, 16}, identity())});
  EXPECT_TRUE(status.is_ok()) << status.to_string();
}

}  // namespace
}  // namespace tessera
