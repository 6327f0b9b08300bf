#include "server/cli/option_table.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

namespace tessera::cli {
namespace {

const OptionSpec& option(const std::string& name) {
  const auto& table = option_table(Role::kServe);
  const auto found =
      std::find_if(table.begin(), table.end(), [&](const auto& spec) { return spec.name == name; });
  EXPECT_NE(found, table.end()) << name;
  return *found;
}

TEST(OptionTableTest, NamesAreUniqueAndLowerCaseWithDashes) {
  for (const Role role : {Role::kServe, Role::kBench}) {
    std::set<std::string> names;
    for (const OptionSpec& spec : option_table(role)) {
      EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
      EXPECT_EQ(spec.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz-"), std::string::npos)
          << spec.name;
      EXPECT_FALSE(spec.help.empty()) << spec.name;
    }
  }
}

TEST(OptionTableTest, EnvironmentNameIsUpperCaseWithPrefix) {
  EXPECT_EQ(environment_name(option("max-model-len")), "TESSERA_MAX_MODEL_LEN");
  EXPECT_EQ(environment_name(option("api-key")), "TESSERA_API_KEY");
}

TEST(OptionTableTest, DefaultsPassTheirOwnLimits) {
  Options options;
  for (const OptionSpec& spec : option_table(Role::kServe)) {
    const auto* field = std::get_if<int64_t Options::*>(&spec.field);
    if (field != nullptr) {
      const std::string value = std::to_string(options.**field);
      EXPECT_TRUE(set_option(spec, {value}, options).is_ok()) << spec.name;
    }
  }
}

TEST(OptionTableTest, NumberOutsideOfItsRangeNamesTheRange) {
  Options options;
  const Status status = set_option(option("port"), {"70000"}, options);
  EXPECT_EQ(status.message(), "70000 is outside of 0 to 65535");
  EXPECT_EQ(options.port, 8000);
}

TEST(OptionTableTest, NumberThatIsNotWholeIsRefused) {
  Options options;
  for (const char* text : {"", "8k", "1.5", "0x10", "99999999999999999999"}) {
    EXPECT_FALSE(set_option(option("port"), {text}, options).is_ok()) << text;
  }
}

TEST(OptionTableTest, AutoReadsAsZero) {
  Options options;
  options.kv_cache_memory_bytes = 7;
  ASSERT_TRUE(set_option(option("kv-cache-memory"), {"auto"}, options).is_ok());
  EXPECT_EQ(options.kv_cache_memory_bytes, 0);
  EXPECT_EQ(option_json(option("kv-cache-memory"), options), "\"auto\"");
}

TEST(OptionTableTest, ChoiceOutsideOfTheListNamesTheList) {
  Options options;
  const Status status = set_option(option("dtype"), {"float16"}, options);
  EXPECT_EQ(status.message(), "\"float16\" is none of [auto, bfloat16, float32]");
}

TEST(OptionTableTest, SecretsAreNotPrinted) {
  Options options;
  ASSERT_TRUE(set_option(option("api-key"), {"sk-one", "sk-two"}, options).is_ok());
  EXPECT_EQ(options.api_keys.size(), 2U);
  EXPECT_EQ(option_json(option("api-key"), options), "[\"***\", \"***\"]");
}

TEST(OptionTableTest, ValidateNamesEveryConflict) {
  Options options;
  options.num_blocks = 4;
  options.kv_cache_memory_bytes = 1024;
  options.max_num_batched_tokens = 8;
  const std::string message = validate(Role::kServe, options).message();
  EXPECT_NE(message.find("no model"), std::string::npos);
  EXPECT_NE(message.find("--num-blocks"), std::string::npos);
  EXPECT_NE(message.find("--max-num-batched-tokens 8"), std::string::npos);
}

}  // namespace
}  // namespace tessera::cli
