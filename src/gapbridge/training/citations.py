"""The papers that model cards cite."""

CEN_2025 = {
    "title": "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens",
    "id": "2410.14655",
    "citation": (
        "@article{cen2025bridging,\n"
        "    title   = {{Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens}},\n"
        "    author  = {Cen, Zhepeng and Liu, Yao and Zeng, Siliang and Chaudhari, Pratik and Rangwala, Huzefa and "
        "Karypis, George and Fakoor, Rasool},\n"
        "    journal = {Transactions on Machine Learning Research},\n"
        "    year    = 2025\n"
        "}"
    ),
}

BENGIO_2015 = {
    "title": "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks",
    "id": "1506.03099",
    "citation": (
        "@inproceedings{bengio2015scheduled,\n"
        "    title     = {{Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks}},\n"
        "    author    = {Bengio, Samy and Vinyals, Oriol and Jaitly, Navdeep and Shazeer, Noam},\n"
        "    booktitle = {Advances in Neural Information Processing Systems},\n"
        "    year      = 2015\n"
        "}"
    ),
}
