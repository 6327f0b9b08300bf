#include "engine/weights/weight_loader.h"

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "engine/base/text.h"
#include "engine/weights/attention_packer.h"
#include "engine/weights/checkpoint_source.h"
#include "engine/weights/dummy_source.h"
#include "engine/weights/tensor_table.h"
#include "engine/weights/weight_packer.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;
using kernels::DType;

// Inner features [begin, end) of an MLP of `width`: rows of gate and up, columns of down.
MlpWeights pack_mlp(const ShardPlan& plan,
                    const std::string& prefix,
                    int64_t width,
                    WeightPacker& packer) {
  const IndexRange inner = plan.inner_features(width);
  MlpWeights mlp;
  mlp.gate_up =
      packer.linear({{prefix + "gate_proj.weight", inner}, {prefix + "up_proj.weight", inner}});
  mlp.down = packer.linear({{prefix + "down_proj.weight", std::nullopt, inner}});
  return mlp;
}

MoeWeights pack_moe(const ShardContext& shard, const std::string& prefix, WeightPacker& packer) {
  const ModelConfig& config = shard.config;
  const IndexRange& experts = shard.plan.experts;
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.moe_intermediate_size;
  MoeWeights moe;
  moe.gate = packer.linear(packer.read(prefix + "gate.weight"), DType::kFloat32);
  if (config.topk_method == TopkMethod::kNoauxTc) {
    moe.gate_bias = packer.vector({prefix + "gate.e_score_correction_bias"});
  }
  std::vector<std::vector<WeightPacker::Part>> gate_up;
  std::vector<std::vector<WeightPacker::Part>> down;
  for (int64_t expert = experts.begin; expert < experts.end; ++expert) {
    const std::string name = str_cat(prefix, "experts.", expert, ".");
    gate_up.push_back({{name + "gate_proj.weight"}, {name + "up_proj.weight"}});
    down.push_back({{name + "down_proj.weight"}});
  }
  moe.gate_up = packer.make_linear(gate_up, 2 * intermediate, hidden);
  moe.down = packer.make_linear(down, hidden, intermediate);
  for (int64_t group = 0; group < experts.size(); ++group) {  // in the order of the files
    packer.load(*moe.gate_up, group, gate_up[static_cast<size_t>(group)]);
    packer.load(*moe.down, group, down[static_cast<size_t>(group)]);
  }
  if (config.n_shared_experts > 0) {
    moe.shared = pack_mlp(
        shard.plan, prefix + "shared_experts.", config.n_shared_experts * intermediate, packer);
  }
  return moe;
}

LayerWeights pack_layer(const ShardContext& shard, int64_t index, WeightPacker& packer) {
  const std::string prefix = layer_prefix(index);
  LayerWeights layer;
  layer.input_norm = packer.vector({prefix + "input_layernorm.weight"});
  layer.attention = pack_attention(shard, index, packer);
  layer.post_attention_norm = packer.vector({prefix + "post_attention_layernorm.weight"});
  if (shard.config.is_moe_layer(index)) {
    layer.moe = pack_moe(shard, prefix + "mlp.", packer);
  } else {
    layer.mlp = pack_mlp(shard.plan, prefix + "mlp.", shard.config.intermediate_size, packer);
  }
  return layer;
}

ModelWeights pack_model(const ShardContext& shard, WeightPacker& packer) {
  const ModelConfig& config = shard.config;
  ModelWeights weights;
  weights.plan = shard.plan;
  weights.dtype = packer.dtype();
  const auto head_rows = [&](const ConstTensorView& table) {
    return table.slice(0, shard.plan.vocabulary.begin, shard.plan.vocabulary.size());
  };
  const ConstTensorView embedding = packer.read("model.embed_tokens.weight");
  weights.embedding = packer.table(embedding);
  if (config.tie_word_embeddings) {
    weights.head = packer.linear(head_rows(embedding), packer.dtype());
  }
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    weights.layers.push_back(pack_layer(shard, layer, packer));
  }
  weights.final_norm = packer.vector({"model.norm.weight"});
  if (!config.tie_word_embeddings) {
    weights.head = packer.linear(head_rows(packer.read("lm_head.weight")), packer.dtype());
  }
  for (const TensorSpec& spec : expected_tensors(config)) {
    weights.num_parameters += spec.num_elements();
  }
  weights.num_bytes = packer.num_bytes();
  return weights;
}

Result<ModelWeights> pack_part(const ModelConfig& config,
                               TensorSource& source,
                               kernels::Backend& backend,
                               const LoadOptions& options) {
  ShardPlan plan;
  if (options.plan) {
    plan = *options.plan;
  } else {
    TESSERA_TRY(plan, ShardPlan::create(config, {}, 0));
  }
  const TplaTransform none;
  const ShardContext shard{.config = config,
                           .plan = plan,
                           .transform = options.transform != nullptr ? *options.transform : none,
                           .forms = options.forms};
  WeightPacker packer(source, backend, options);
  return pack_model(shard, packer);
}

// The edge where a backend's exceptions become a Status.
Result<ModelWeights> pack_model_or_fail(const ModelConfig& config,
                                        TensorSource& source,
                                        kernels::Backend& backend,
                                        const LoadOptions& options) {
  if (options.dtype != DType::kFloat32 && options.dtype != DType::kBFloat16) {
    return invalid_argument(str_cat(
        "weights of ", kernels::dtype_name(options.dtype), ", expected float32 or bfloat16"));
  }
  try {
    return pack_part(config, source, backend, options);
  } catch (const DeviceError& error) {
    return resource_exhausted(str_cat("loading weights: ", error.what()));
  } catch (const std::bad_alloc&) {
    return resource_exhausted("loading weights: out of host memory");
  }
}

}  // namespace

Result<ModelWeights> load_model_weights(const ModelConfig& config,
                                        const Checkpoint& checkpoint,
                                        kernels::Backend& backend,
                                        const LoadOptions& options) {
  TESSERA_RETURN_IF_ERROR(config.validate());
  TESSERA_TRY(auto source, CheckpointSource::create(config, checkpoint));
  auto weights = pack_model_or_fail(config, *source, backend, options);
  TESSERA_RETURN_IF_ERROR(source->status());  // what was read is checked on the way
  return weights;
}

Result<ModelWeights> make_dummy_weights(const ModelConfig& config,
                                        kernels::Backend& backend,
                                        const LoadOptions& options,
                                        uint64_t seed) {
  TESSERA_RETURN_IF_ERROR(config.validate());
  DummySource source(config, seed);
  return pack_model_or_fail(config, source, backend, options);
}

}  // namespace tessera
