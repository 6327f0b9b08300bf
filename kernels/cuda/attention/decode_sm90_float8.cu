#include "kernels/cuda/attention/decode_sm90_float8.cuh"
#include "kernels/cuda/attention/decode_sm90_launch.cuh"

namespace tessera::kernels::cuda {

template <int kPanels>
void attend_float8(const DecodeSm90Maps& maps,
                   const DecodeSm90Args& args,
                   int num_parts,
                   cudaStream_t stream) {
  if (args.num_heads <= 64) {
    using Shape = DecodeSm90Float8TurnsShape<kPanels>;
    attend<Shape>(decode_sm90_kernel<Shape>, maps, args, num_parts, stream);
  } else {
    using Shape = DecodeSm90Float8Shape<kPanels>;
    attend<Shape>(decode_sm90_float8_kernel<Shape>, maps, args, num_parts, stream);
  }
}

template void attend_float8<1>(const DecodeSm90Maps&, const DecodeSm90Args&, int, cudaStream_t);
template void attend_float8<2>(const DecodeSm90Maps&, const DecodeSm90Args&, int, cudaStream_t);
template void attend_float8<4>(const DecodeSm90Maps&, const DecodeSm90Args&, int, cudaStream_t);

}  // namespace tessera::kernels::cuda
