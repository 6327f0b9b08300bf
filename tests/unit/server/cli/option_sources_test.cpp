#include "server/cli/option_sources.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

#include "engine/base/text.h"
#include "server/cli/option_table.h"

namespace tessera::cli {
namespace {

class OptionSourcesTest : public testing::Test {
 protected:
  OptionSourcesTest()
      : path_(testing::TempDir() + "tessera_option_sources_" +
              testing::UnitTest::GetInstance()->current_test_info()->name() + ".json") {}
  ~OptionSourcesTest() override { std::remove(path_.c_str()); }

  Status apply_file(const std::string& text) {
    std::ofstream(path_) << text;
    return apply_config_file(path_, resolved_);
  }

  std::string path_;
  ResolvedOptions resolved_;
};

TEST_F(OptionSourcesTest, FileSetsEachKindOfOption) {
  ASSERT_TRUE(apply_file(R"(// comment
    {"model": "m", "served-model-name": ["a", "b"], "port": 9000, /* more */
     "kv-cache-memory": "512MiB", "max-request-bytes": 4096, "max-model-len": "auto",
     "enable-prefix-caching": false, "api-key": "one"})")
                  .is_ok());
  const Options& options = resolved_.options;
  EXPECT_EQ(options.model, "m");
  EXPECT_EQ(options.served_model_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(options.port, 9000);
  EXPECT_EQ(options.kv_cache_memory_bytes, 536870912);
  EXPECT_EQ(options.max_request_bytes, 4096);
  EXPECT_EQ(options.max_model_len, 0);
  EXPECT_FALSE(options.enable_prefix_caching);
  EXPECT_EQ(options.api_keys, std::vector<std::string>{"one"});
  EXPECT_EQ(resolved_.sources.at("port"), "file");
  EXPECT_EQ(resolved_.sources.count("host"), 0U);
}

TEST_F(OptionSourcesTest, UnknownKeyNamesTheNearest) {
  const Status status = apply_file(R"({"max-model-length": 5})");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("did you mean \"max-model-len\"?"), std::string::npos)
      << status.message();
}

TEST_F(OptionSourcesTest, EveryFaultOfTheFileIsReported) {
  const Status status = apply_file(
      R"({"port": "8000", "model": 5, "enable-prefix-caching": "yes", "max-n": 0, "dtype": {}})");
  for (const char* key : {"port: ", "model: ", "enable-prefix-caching: ", "max-n: ", "dtype: "}) {
    EXPECT_NE(status.message().find(key), std::string::npos) << status.message();
  }
}

TEST_F(OptionSourcesTest, MissingFileIsNotFound) {
  EXPECT_EQ(apply_config_file("/nonexistent/serve.json", resolved_).code(), StatusCode::kNotFound);
}

TEST_F(OptionSourcesTest, EnvironmentSetsOptionsAndSplitsLists) {
  const Environment environment = [](const std::string& name) -> std::optional<std::string> {
    if (name == "TESSERA_PORT") {
      return "81";
    }
    if (name == "TESSERA_API_KEY") {
      return "one,two";
    }
    if (name == "TESSERA_HOST") {
      return "";  // set but empty: as if it were not set
    }
    return std::nullopt;
  };
  ASSERT_TRUE(apply_environment(environment, resolved_).is_ok());
  EXPECT_EQ(resolved_.options.port, 81);
  EXPECT_EQ(resolved_.options.api_keys, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(resolved_.options.host, "127.0.0.1");
  EXPECT_EQ(resolved_.sources.at("api-key"), "environment");
}

TEST_F(OptionSourcesTest, EnvironmentFaultNamesTheVariable) {
  const Environment environment = [](const std::string& name) {
    return name == "TESSERA_PORT" ? std::optional<std::string>("x") : std::nullopt;
  };
  EXPECT_EQ(apply_environment(environment, resolved_).message(),
            "TESSERA_PORT: \"x\" is not a whole number");
}

TEST_F(OptionSourcesTest, RenderedOptionsAreAConfigFileWithSources) {
  ASSERT_TRUE(apply_file(R"({"model": "m", "max-request-bytes": "1MiB"})").is_ok());
  const std::string rendered = render_options(resolved_);
  EXPECT_NE(rendered.find("\"max-request-bytes\": \"1MiB\",  // file"), std::string::npos);
  EXPECT_NE(rendered.find("\"port\": 8000,  // default"), std::string::npos);

  ResolvedOptions again;
  std::ofstream(path_) << rendered;
  const Status status = apply_config_file(path_, again);
  ASSERT_TRUE(status.is_ok()) << status.message();
  EXPECT_EQ(again.options.model, "m");
  EXPECT_EQ(again.options.max_request_bytes, int64_t{1} << 20);
}

TEST_F(OptionSourcesTest, ExampleFileRepeatsTheDefaults) {
  const Status status = apply_config_file(TESSERA_SOURCE_DIR "/configs/serve.json", resolved_);
  ASSERT_TRUE(status.is_ok()) << status.message();
  ResolvedOptions expected;
  expected.options.model = "configs/demo_model";
  expected.options.served_model_names = {"demo_model"};
  expected.sources = resolved_.sources;
  EXPECT_EQ(render_options(resolved_), render_options(expected));
}

TEST_F(OptionSourcesTest, ExampleFileNamesEveryOption) {
  std::ifstream file(TESSERA_SOURCE_DIR "/configs/serve.json");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (const OptionSpec& spec : option_table(Role::kServe)) {
    const bool is_for_tests = spec.name == "handoff-faults";
    EXPECT_EQ(text.find(str_cat('"', spec.name, "\":")) != std::string::npos, !is_for_tests)
        << spec.name;
  }
}

TEST_F(OptionSourcesTest, ExampleFilesOfTheRolesFitTheirRoles) {
  for (const auto& [role, name] : {std::pair(Role::kRouter, "router"),
                                   std::pair(Role::kPrefill, "prefill"),
                                   std::pair(Role::kDecode, "decode")}) {
    ResolvedOptions resolved(role);
    const Status status =
        apply_config_file(str_cat(TESSERA_SOURCE_DIR "/configs/", name, ".json"), resolved);
    ASSERT_TRUE(status.is_ok()) << status.message();
    EXPECT_TRUE(validate(role, resolved.options).is_ok()) << name;
    EXPECT_EQ(resolved.options.port, default_options(role).port) << name;
    EXPECT_EQ(resolved.options.rpc_port, default_options(role).rpc_port) << name;
  }
}

TEST_F(OptionSourcesTest, KeyOfAnotherRoleIsRefused) {
  ResolvedOptions resolved(Role::kRouter);
  std::ofstream(path_) << R"({"model": "m", "landing-slots": 4})";
  const Status status = apply_config_file(path_, resolved);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("landing-slots"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace tessera::cli
