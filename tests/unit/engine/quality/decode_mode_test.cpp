#include "engine/quality/decode_mode.h"

#include <gtest/gtest.h>

#include "engine/base/text.h"
#include "engine/weights/tpla_calibration.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tpla_bases.h"
#include "tests/unit/engine/quality/quality_models.h"

namespace tessera {
namespace {

TEST(DecodeModeTest, ReadsEveryPart) {
  const DecodeMode dcp = parse_decode_mode("dcp:4").value();
  EXPECT_EQ(dcp.sharding.attention, AttentionSharding::kDcp);
  EXPECT_EQ(dcp.sharding.num_ranks, 4);
  EXPECT_EQ(dcp.sharding.num_slices, 1);

  const DecodeMode plain = parse_decode_mode("tpla:2").value();
  EXPECT_EQ(plain.sharding.attention, AttentionSharding::kTpla);
  EXPECT_EQ(plain.sharding.num_slices, 2);
  EXPECT_EQ(plain.sharding.num_ranks, 2);
  EXPECT_EQ(plain.basis, "auto");

  const DecodeMode full = parse_decode_mode("tpla:2/4:folder:1/file").value();
  EXPECT_EQ(full.sharding.num_ranks, 4);
  EXPECT_EQ(full.basis, "folder:1/file");
  EXPECT_EQ(full.text, "tpla:2/4:folder:1/file");
  EXPECT_EQ(full.label(), "tpla:2/4:file");

  EXPECT_EQ(parse_decode_mode("tpla:2:none").value().label(), "tpla:2:none");
}

TEST(DecodeModeTest, AWindowStandsAtTheEnd) {
  const auto window = [](const char* text) { return parse_decode_mode(text).value().window; };
  EXPECT_EQ(window("tpla:2"), std::nullopt);
  EXPECT_EQ(window("tpla:2@16"), (kernels::LatentWindow{0, 16}));
  EXPECT_EQ(window("tpla:2/4:hadamard@4+16"), (kernels::LatentWindow{4, 16}));
  EXPECT_EQ(window("tpla:2:none@0"), (kernels::LatentWindow{0, 0}));
  const DecodeMode file = parse_decode_mode("tpla:2:folder/file@8").value();
  EXPECT_EQ(file.basis, "folder/file");
  EXPECT_EQ(file.window, (kernels::LatentWindow{0, 8}));
  EXPECT_EQ(file.label(), "tpla:2:file@8");
  // Part of a path.
  EXPECT_EQ(parse_decode_mode("tpla:2:file@x").value().basis, "file@x");
  EXPECT_EQ(parse_decode_mode("tpla:2:a@8/file").value().basis, "a@8/file");
  for (const char* text : {"dcp:2@16", "replicated:2@16", "tpla:2@"}) {
    EXPECT_FALSE(parse_decode_mode(text).is_ok()) << text;
  }
}

TEST(DecodeModeTest, NamesWhatItCannotRead) {
  for (const char* text : {"",
                           "exact",
                           "dcp",
                           "dcp:0",
                           "dcp:2x",
                           "replicated:2:none",
                           "tpla:65",
                           "tpla:2/",
                           "tpla:2/x"}) {
    const auto mode = parse_decode_mode(text);
    if (std::string(text) == "tpla:2/") {  // nothing said about ranks
      EXPECT_TRUE(mode.is_ok());
      continue;
    }
    EXPECT_EQ(mode.status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(DecodeModeTest, ListsAreSplitAtCommas) {
  const auto modes = parse_decode_modes({"replicated:2,dcp:2", "tpla:2"}).value();
  ASSERT_EQ(modes.size(), 3U);
  EXPECT_EQ(modes[1].text, "dcp:2");
  EXPECT_EQ(parse_decode_modes({"dcp:2", "tpla:2,dcp:2"}).status().message(),
            "dcp:2 is given twice");
}

TEST(DecodeModeTest, ResolvesToWhatAWorkerWouldMake) {
  const ModelConfig config = test::QualityModels().parts().config;
  const auto setup = [&](const char* text) {
    return resolve_mode(parse_decode_mode(text).value(), config);
  };
  EXPECT_EQ(setup("tpla:2").value().transform.name(), "hadamard:0");
  EXPECT_TRUE(setup("tpla:2:none").value().transform.is_identity());
  EXPECT_TRUE(setup("dcp:2").value().transform.is_identity());
  EXPECT_EQ(setup("tpla:2:none@4+16").value().sharding.window, (kernels::LatentWindow{4, 16}));
  EXPECT_EQ(setup("tpla:2@-1").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(setup("tpla:1@16").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(setup("tpla:3").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(setup("tpla:2:/nonexistent").status().code(), StatusCode::kNotFound);
}

TEST(DecodeModeTest, AFilesWindowHoldsUnlessTheModeHasItsOwn) {
  const ModelConfig config = test::QualityModels().parts().config;
  const test::TempFolder folder;
  TplaCalibration calibration = test::make_calibration(config, {});
  calibration.window = {.num_first = 4, .num_last = 32};
  const std::string path = folder.file("calibration.safetensors");
  ASSERT_TRUE(write_tpla_calibration(path, config, calibration).is_ok());
  const auto window = [&](const std::string& text) {
    return resolve_mode(parse_decode_mode(text).value(), config).value().sharding.window;
  };
  EXPECT_EQ(window("tpla:2:" + path), calibration.window);
  EXPECT_EQ(window("tpla:2:" + path + "@16"), (kernels::LatentWindow{0, 16}));
  EXPECT_TRUE(window("tpla:2:" + path + "@0").is_empty());
}

TEST(DecodeModeTest, WithoutABasisIsWhatServingWouldTake) {
  const ModelConfig config = test::small_model_config();
  const test::TempFolder folder;
  const auto settled = [&](const char* text) {
    DecodeMode mode = parse_decode_mode(text).value();
    EXPECT_TRUE(settle_basis(config, folder.path(), mode).is_ok());
    return mode;
  };
  EXPECT_EQ(settled("tpla:2").text, "tpla:2:hadamard");
  EXPECT_EQ(settled("tpla:2@4+16").text, "tpla:2:hadamard@4+16");
  const std::string path = folder.file(kTplaCalibrationFile);
  TplaCalibration calibration{
      .basis = "identity", .dealing = "contiguous", .num_slices = 2, .layers = {}};
  TplaCalibration::Layer layer;
  layer.basis.assign(32 * 32, 0.0F);
  for (size_t i = 0; i < 32; ++i) {
    layer.basis[i * 33] = 1.0F;
  }
  calibration.layers.assign(2, layer);
  ASSERT_TRUE(write_tpla_calibration(path, config, calibration).is_ok());
  EXPECT_EQ(settled("tpla:2").basis, path);
  EXPECT_EQ(settled("tpla:2").label(), str_cat("tpla:2:", kTplaCalibrationFile));
  EXPECT_EQ(settled("tpla:4").basis, "hadamard");
  EXPECT_EQ(settled("tpla:2:none").text, "tpla:2:none");
  EXPECT_EQ(settled("dcp:2").text, "dcp:2");
}

TEST(DecodeModeTest, LengthsArePairs) {
  const auto lengths = parse_quality_lengths({"256:128,64:960"}).value();
  ASSERT_EQ(lengths.size(), 2U);
  EXPECT_EQ(lengths[1], (QualityLengths{.prefill_tokens = 64, .decode_tokens = 960}));
  EXPECT_EQ(lengths[0].window_tokens(), 385);
  for (const char* text : {"256", "0:1", "5:0", "a:b", "1:2:3"}) {
    EXPECT_FALSE(parse_quality_lengths({text}).is_ok()) << text;
  }
}

}  // namespace
}  // namespace tessera
